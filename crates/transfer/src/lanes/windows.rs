//! Bytes that the receiver lets the sender send for each device.

use std::collections::HashMap;

use crate::codec::DeviceNumber;

/// Windows of all devices: each has one for the demand lane, and one for the others.
#[derive(Debug)]
pub(crate) struct Windows {
    first_bytes: u64,
    left_bytes: HashMap<(DeviceNumber, bool), u64>,
}

impl Windows {
    pub(crate) fn new(first_bytes: u64) -> Self {
        Self { first_bytes, left_bytes: HashMap::new() }
    }

    fn left(&self, device: DeviceNumber, urgent: bool) -> u64 {
        self.left_bytes.get(&(device, urgent)).copied().unwrap_or(self.first_bytes)
    }

    pub(crate) fn covers(&self, device: DeviceNumber, urgent: bool, bytes: usize) -> bool {
        u64::try_from(bytes).is_ok_and(|bytes| bytes <= self.left(device, urgent))
    }

    pub(crate) fn take(&mut self, device: DeviceNumber, urgent: bool, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let left = self.left(device, urgent).saturating_sub(bytes);
        self.left_bytes.insert((device, urgent), left);
    }

    pub(crate) fn grant(&mut self, device: DeviceNumber, urgent: bool, bytes: u64) {
        let left = self.left(device, urgent).saturating_add(bytes);
        self.left_bytes.insert((device, urgent), left);
    }
}
