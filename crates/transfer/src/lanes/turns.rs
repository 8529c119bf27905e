//! Turns of the devices of one lane, by bytes.
//!
//! Each device has a virtual time, which grows by the bytes of its frames. The device of the lowest
//! time goes next. A device that comes back starts at the time of the others, so it gets no more
//! for having waited.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::Entry;
use crate::codec::DeviceNumber;

/// Frames of a lane. A device that has none keeps its virtual time.
#[derive(Debug)]
pub(super) struct Turns<T> {
    queues: HashMap<DeviceNumber, Queue<T>>,
    /// (priority, virtual time, device) of each queue that has a frame.
    ready: BTreeSet<(u8, u64, DeviceNumber)>,
    /// Virtual time of the last frame of each priority.
    now: BTreeMap<u8, u64>,
}

#[derive(Debug)]
struct Queue<T> {
    priority: u8,
    time: u64,
    bytes: usize,
    entries: VecDeque<Entry<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { priority: 0, time: 0, bytes: 0, entries: VecDeque::new() }
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), ready: BTreeSet::new(), now: BTreeMap::new() }
    }
}

impl<T> Turns<T> {
    pub(super) fn device_bytes(&self, device: DeviceNumber) -> usize {
        self.queues.get(&device).map_or(0, |queue| queue.bytes)
    }

    /// Adds a frame. The priority counts if the device has no other frame here.
    pub(super) fn push(&mut self, priority: u8, entry: Entry<T>) {
        let device = entry.device;
        let queue = self.queues.entry(device).or_default();
        if queue.entries.is_empty() {
            queue.priority = priority;
            queue.time = queue.time.max(self.now.get(&priority).copied().unwrap_or(0));
            self.ready.insert((priority, queue.time, device));
        }
        queue.bytes += entry.bytes;
        queue.entries.push_back(entry);
    }

    /// Takes the frame of the device whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let (priority, time, device) = self.ready.pop_first()?;
        let queue = self.queues.get_mut(&device)?;
        let entry = queue.entries.pop_front()?;
        self.now.insert(priority, time);
        queue.bytes -= entry.bytes;
        queue.time += u64::try_from(entry.bytes).unwrap_or(u64::MAX);
        if !queue.entries.is_empty() {
            self.ready.insert((priority, queue.time, device));
        }
        Some(entry)
    }
}
