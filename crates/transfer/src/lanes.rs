//! Order of the frames that wait to be sent, and the room for them. Does no IO and never waits.
//!
//! Participants: *producers* push frames, and the connection's writer pops them.
//!
//! Goals: the lowest lane first; devices of one lane and priority take turns by bytes; a device
//! whose receiver stalls takes no room from others. Non-goals: whether frames arrive.
//!
//! Must hold: a frame enters only if its device's window covers it, so all that waits may be sent.
//! Frames of one lane and device leave in the order in which they came.
use std::collections::{HashMap, VecDeque};

use crate::codec::{DeviceNumber, Lane};

#[cfg(test)]
mod tests;
mod turns;
mod windows;

use turns::Turns;
pub(crate) use windows::Windows;

/// Most bytes that wait for one device on one lane: the writer always finds the next frame, and one
/// device can't take all room.
pub const DEVICE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of the lanes dirty and bulk that wait.
pub const BLOCKS_BYTES_MAX: usize = 16 << 20;
/// Most bytes of all lanes that wait: demand and control always find room beside blocks.
pub const QUEUED_BYTES_MAX: usize = 24 << 20;

/// A frame that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// Urgency.
    pub lane: Lane,
    /// Device of the message, or none.
    pub device: DeviceNumber,
    /// Length of the payload, in bytes.
    pub bytes: usize,
    /// Says whether the frame counts against its device's window.
    pub counts: bool,
    /// The frame.
    pub item: T,
}

/// Reason why a frame can't wait here now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The receiver must grant more bytes first.
    Window,
    /// Frames must leave first.
    Room,
}

/// Frames that wait, in all lanes of a connection.
#[derive(Debug)]
pub struct Lanes<T> {
    control: VecDeque<Entry<T>>,
    turns: HashMap<Lane, Turns<T>>,
    windows: Windows,
    priorities: HashMap<DeviceNumber, u8>,
    queued_bytes: usize,
    blocks_bytes: usize,
}

impl<T> Lanes<T> {
    /// Makes empty lanes, for devices with this window at first.
    #[must_use]
    pub fn new(window_bytes: u32) -> Self {
        Self {
            control: VecDeque::new(),
            turns: HashMap::new(),
            windows: Windows::new(u64::from(window_bytes)),
            priorities: HashMap::new(),
            queued_bytes: 0,
            blocks_bytes: 0,
        }
    }

    /// Sets the priority of frames that a device pushes from now on. A lower number goes first.
    pub fn prioritise(&mut self, device: DeviceNumber, priority: u8) {
        self.priorities.insert(device, priority);
    }

    /// Adds to a device's window. A window never passes `u64::MAX`.
    pub fn grant(&mut self, device: DeviceNumber, urgent: bool, bytes: u64) {
        self.windows.grant(device, urgent, bytes);
    }

    /// Says whether a frame may wait here now.
    ///
    /// # Errors
    ///
    /// Says for what the producer must wait.
    pub fn room(
        &self,
        lane: Lane,
        device: DeviceNumber,
        bytes: usize,
        counts: bool,
    ) -> Result<(), Full> {
        if counts && !self.windows.covers(device, lane == Lane::Demand, bytes) {
            return Err(Full::Window);
        }
        let device_bytes = self.turns.get(&lane).map_or(0, |turns| turns.device_bytes(device));
        let blocks = lane > Lane::Control && self.blocks_bytes + bytes > BLOCKS_BYTES_MAX;
        let all = self.queued_bytes + bytes > QUEUED_BYTES_MAX;
        match blocks || all || device_bytes + bytes > DEVICE_BYTES_MAX {
            true => Err(Full::Room),
            false => Ok(()),
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// Gives the frame back, with the reason, if it must wait elsewhere.
    pub fn push(&mut self, entry: Entry<T>) -> Result<(), (Entry<T>, Full)> {
        let Entry { lane, device, bytes, counts, .. } = entry;
        if let Err(full) = self.room(lane, device, bytes, counts) {
            return Err((entry, full));
        }
        if counts {
            self.windows.take(device, lane == Lane::Demand, bytes);
        }
        self.queued_bytes += bytes;
        self.blocks_bytes += if lane > Lane::Control { bytes } else { 0 };
        if lane == Lane::Control {
            self.control.push_back(entry);
        } else {
            let priority = self.priorities.get(&device).copied().unwrap_or(u8::MAX);
            self.turns.entry(lane).or_default().push(priority, entry);
        }
        Ok(())
    }

    /// Takes the frame that goes next.
    pub fn pop(&mut self) -> Option<Entry<T>> {
        let entry = Lane::ALL.into_iter().find_map(|lane| match lane {
            Lane::Control => self.control.pop_front(),
            _ => self.turns.get_mut(&lane)?.pop(),
        })?;
        self.queued_bytes -= entry.bytes;
        self.blocks_bytes -= if entry.lane > Lane::Control { entry.bytes } else { 0 };
        Some(entry)
    }

    /// Bytes of the payloads that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}
