//! Bytes that the peer may still send: the receiver's side of the windows.

use super::{Error, Result};
use crate::{
    codec::{DeviceNumber, Head, Lane},
    lanes::Windows,
};

/// Windows that this side has granted.
#[derive(Debug)]
pub(super) struct Credit(Windows);

impl Credit {
    pub(super) fn new(window_bytes: u32) -> Self {
        Self(Windows::new(u64::from(window_bytes)))
    }

    pub(super) fn grant(&mut self, device: DeviceNumber, urgent: bool, bytes: u64) {
        self.0.grant(device, urgent, bytes);
    }

    /// Counts a frame of the peer.
    pub(super) fn take(&mut self, head: &Head) -> Result<()> {
        if !head.kind.counts() {
            return Ok(());
        }
        let (device, urgent) = (head.device, head.lane == Lane::Demand);
        if !self.0.covers(device, urgent, head.payload_bytes) {
            return Err(Error::Window { device });
        }
        self.0.take(device, urgent, head.payload_bytes);
        Ok(())
    }
}
