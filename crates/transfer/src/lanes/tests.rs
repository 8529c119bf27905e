//! Properties of the order, over random pushes with seeds.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const WINDOW_BYTES: u32 = 8 << 20;

fn entry(lane: Lane, device: u16, bytes: usize, item: u64) -> Entry<u64> {
    let device = if lane == Lane::Control { DeviceNumber::NONE } else { DeviceNumber(device) };
    Entry { lane, device, bytes, counts: lane != Lane::Control, item }
}

fn grant_all(lanes: &mut Lanes<u64>, devices: impl IntoIterator<Item = u16>) {
    for device in devices {
        for urgent in [false, true] {
            lanes.grant(DeviceNumber(device), urgent, u64::MAX);
        }
    }
}

#[test]
fn a_lower_lane_leaves_first_and_each_device_in_order() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut lanes = Lanes::new(WINDOW_BYTES);
        grant_all(&mut lanes, 0..4);
        let (mut waiting, mut last) = (Vec::new(), HashMap::new());
        for item in 0..400 {
            let lane = Lane::ALL[random.random_range(0..4)];
            let new = entry(lane, random.random_range(0..4), random.random_range(1..9 * KIB), item);
            if lanes.push(new.clone()).is_ok() {
                waiting.push(new);
            }
            if random.random_bool(0.4) {
                let lowest = waiting.iter().map(|entry| entry.lane).min();
                let popped = lanes.pop();
                assert_eq!(popped.as_ref().map(|entry| entry.lane), lowest, "seed {seed}");
                let Some(popped) = popped else { continue };
                waiting.retain(|entry| *entry != popped);
                let before = last.insert((popped.lane, popped.device), popped.item);
                assert!(before.is_none_or(|before| before < popped.item), "seed {seed}");
            }
            let bytes: usize = waiting.iter().map(|entry| entry.bytes).sum();
            assert_eq!(lanes.queued_bytes(), bytes, "seed {seed}");
        }
        while let Some(popped) = lanes.pop() {
            waiting.retain(|entry| *entry != popped);
        }
        assert!(waiting.is_empty() && lanes.queued_bytes() == 0, "seed {seed}");
    }
}

/// Sends `total` bytes for devices that always have more, with one frame of `sizes[device]` each.
/// Gives the bytes of each device. Devices from `stalled` on get no window after the first.
fn shares(sizes: &[usize], depth: usize, stalled: usize, total: usize) -> Vec<usize> {
    let mut lanes = Lanes::new(WINDOW_BYTES);
    grant_all(&mut lanes, 0..u16::try_from(stalled).expect("few"));
    let mut sent = vec![0; sizes.len()];
    let mut waiting = vec![0; sizes.len()];
    while sent.iter().sum::<usize>() < total {
        for (device, bytes) in sizes.iter().enumerate() {
            let number = u16::try_from(device).expect("few");
            while waiting[device] < depth
                && lanes.push(entry(Lane::Bulk, number, *bytes, 0)).is_ok()
            {
                waiting[device] += 1;
            }
        }
        let popped = lanes.pop().expect("some device has a window");
        let device = usize::from(popped.device.0);
        waiting[device] -= 1;
        sent[device] += popped.bytes;
    }
    sent
}

#[test]
fn devices_take_turns_by_bytes_whatever_their_frames_and_depth() {
    for depth in [1, 3] {
        let sent = shares(&[MIB, 64 * KIB, 4 * KIB], depth, 3, 300 * MIB);
        let (least, most) = (sent.iter().min().expect("3"), sent.iter().max().expect("3"));
        assert!(most - least <= 2 * MIB, "depth {depth}: {sent:?}");
    }
}

#[test]
fn a_stalled_device_slows_others_by_no_more_than_its_window() {
    let alone = shares(&[MIB; 3], 4, 3, 600 * MIB);
    let beside = shares(&[MIB; 4], 4, 3, 600 * MIB);
    assert!(beside[3] <= usize::try_from(WINDOW_BYTES).expect("small"), "{beside:?}");
    for device in 0..3 {
        assert!(beside[device] * 10 >= alone[device] * 9, "{alone:?} {beside:?}");
    }
}

#[test]
fn a_stalled_device_holds_no_room() {
    let mut lanes = Lanes::new(WINDOW_BYTES);
    let mut bytes = 0;
    while lanes.push(entry(Lane::Bulk, 7, MIB, 0)).is_ok() {
        bytes += MIB;
        while lanes.pop().is_some() {}
    }
    assert_eq!(bytes, usize::try_from(WINDOW_BYTES).expect("small"));
    assert_eq!(lanes.room(Lane::Bulk, DeviceNumber(7), 1, true), Err(Full::Window));
    assert_eq!(lanes.queued_bytes(), 0);
    assert_eq!(lanes.room(Lane::Demand, DeviceNumber(7), MIB, true), Ok(()));
    lanes.grant(DeviceNumber(7), false, 1);
    assert_eq!(lanes.room(Lane::Bulk, DeviceNumber(7), 1, true), Ok(()));
    assert_eq!(lanes.room(Lane::Bulk, DeviceNumber(7), 2, true), Err(Full::Window));
}

#[test]
fn room_is_bounded_and_demand_finds_some_beside_blocks() {
    let mut lanes = Lanes::new(WINDOW_BYTES);
    grant_all(&mut lanes, 0..64);
    for device in 0..64 {
        while lanes.push(entry(Lane::Bulk, device, MIB, 0)).is_ok() {}
        while lanes.push(entry(Lane::Dirty, device, MIB, 0)).is_ok() {}
    }
    assert_eq!(lanes.queued_bytes(), BLOCKS_BYTES_MAX);
    for device in 0..64 {
        while lanes.push(entry(Lane::Demand, device, MIB, 1)).is_ok() {}
        while lanes.push(entry(Lane::Control, 0, 64 * KIB, 1)).is_ok() {}
    }
    assert_eq!(lanes.queued_bytes(), QUEUED_BYTES_MAX);
    assert_eq!(lanes.pop().map(|entry| entry.lane), Some(Lane::Demand));
}

#[test]
fn a_lower_priority_number_goes_first() {
    let mut lanes = Lanes::new(WINDOW_BYTES);
    lanes.prioritise(DeviceNumber(1), 9);
    lanes.prioritise(DeviceNumber(2), 3);
    for device in [1, 2] {
        for item in 0..2 {
            lanes.push(entry(Lane::Dirty, device, KIB, item)).expect("there is room");
        }
    }
    let order: Vec<u16> = std::iter::from_fn(|| lanes.pop()).map(|entry| entry.device.0).collect();
    assert_eq!(order, [2, 2, 1, 1]);
}

#[test]
fn a_device_that_waited_gets_its_share_and_no_more() {
    let mut lanes = Lanes::new(WINDOW_BYTES);
    grant_all(&mut lanes, 0..2);
    for _ in 0..100 {
        lanes.push(entry(Lane::Bulk, 0, MIB, 0)).expect("room");
        lanes.pop();
    }
    for device in [0, 1] {
        for _ in 0..4 {
            lanes.push(entry(Lane::Bulk, device, MIB, 0)).expect("room");
        }
    }
    let order: Vec<u16> = std::iter::from_fn(|| lanes.pop()).map(|entry| entry.device.0).collect();
    let first = order[..4].iter().filter(|device| **device == 1).count();
    assert!((2..=3).contains(&first), "{order:?}");
}
