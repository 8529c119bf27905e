use super::*;
use crate::testing::memory_bucket;

/// What a collector remembers of pins goes with the pins.
#[tokio::test]
async fn pins_that_are_gone_are_forgotten() {
    let bucket = memory_bucket(1).await;
    let collector = Collector::new(bucket.clone(), Nodes::new(bucket, 1 << 20));
    let volume = VolumeId([1; 16]);
    for round in 0..100u8 {
        let mut listed = Listed::default();
        listed.add(names::pin(volume, PinId([round; 16]), 1));
        listed.add(names::pin(volume, PinId([0xFF; 16]), u64::from(round)));
        assert_eq!(collector.first_seen(volume, &listed).len(), 2);
    }
    assert!(collector.first_seen(volume, &Listed::default()).is_empty());
    assert!(collector.pins.lock().is_empty());
}
