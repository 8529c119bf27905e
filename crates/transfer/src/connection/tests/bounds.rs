//! Peers that send as much as they can hold no more of our memory than the bound.

use super::*;

/// Sends frames until the pipe is full for 5 s, or the connection ends.
async fn flood(bare: &mut DuplexStream, mut next: impl FnMut(u64) -> Vec<u8>) -> usize {
    let (mut sequence, mut sent) = (1, 0);
    loop {
        let bytes = next(sequence);
        let written = tokio::time::timeout(Duration::from_secs(5), bare.write_all(&bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            return sent;
        }
        sequence += 1;
        sent += bytes.len();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_blocks_is_held_back() {
    let (connection, mut bare) = beside_bare().await;
    let sent = flood(&mut bare, |sequence| {
        let device = u16::try_from(sequence / 7).expect("few");
        frame(Lane::Bulk, device, &data(1 << 20), sequence)
    })
    .await;
    let peak = connection.memory().peak_bytes();
    assert!(sent > 8 << 20 && peak > 8 << 20, "{sent} sent, {peak} held");
    assert!(sent <= RECEIVED_BYTES_MAX && peak <= RECEIVED_BYTES_MAX, "{sent} sent, {peak} held");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_small_frames_is_held_back() {
    let (connection, mut bare) = beside_bare().await;
    let message = Message::Got(Generation(1));
    flood(&mut bare, |sequence| frame(Lane::Control, 1, &message, sequence)).await;
    assert!(connection.memory().peak_bytes() <= RECEIVED_FRAMES_MAX * 1024);
}

/// A few bytes that grow to a mebibyte each count as what they grow to.
#[tokio::test(start_paused = true)]
async fn a_flood_of_compressed_blocks_counts_as_what_it_becomes() {
    let (mut connection, mut bare) = beside_bare().await;
    let Message::Data(mut extents) = data(1 << 20) else { panic!("data") };
    extents[0].compression = Compression::Lz4;
    extents[0].stored = Bytes::from_static(b"small");
    let message = Message::Data(extents);
    let length = frame(Lane::Bulk, 1, &message, 0).len();
    let sent = flood(&mut bare, |sequence| frame(Lane::Bulk, 1, &message, sequence)).await;
    let peak = connection.memory().peak_bytes();
    assert!((RECEIVED_BYTES_MAX - (2 << 20)..=RECEIVED_BYTES_MAX).contains(&peak), "{peak}");
    let mut received = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), connection.next()).await {
        received += 1;
    }
    assert!(received >= RECEIVED_BYTES_MAX >> 20 && sent >= received * length - length, "{sent}");
    // The flood was cut within a frame.
    assert!(connection.memory().held_bytes() < 1024);
}

#[tokio::test(start_paused = true)]
async fn lists_take_no_more_than_they_are_charged() {
    assert!(size_of::<Stamped>() <= 3 * 32 && size_of::<Range>() <= 3 * 16);
    assert!(size_of::<Named>() <= 3 * 44 && size_of::<codec::Accepted>() <= 3 * 10);
    // With its bytes, which are one at least.
    assert!(size_of::<Extent>() <= 2 * (Extent::FIELD_BYTES + 1));
    assert!(size_of::<codec::Offered>() <= 3 * 29);
}

#[tokio::test(start_paused = true)]
async fn a_head_alone_holds_its_frame_and_no_more() {
    let (mut connection, mut bare) = beside_bare().await;
    let bytes = frame(Lane::Bulk, 1, &data(1 << 20), 1);
    bare.write_all(&bytes[..HEAD_BYTES]).await.expect("room");
    assert_eq!(connection.next().await.map(drop), Err(Error::Lost));
    assert!(connection.memory().peak_bytes() < 4 << 20);
    assert_eq!(connection.memory().held_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_length_above_the_limit_allocates_nothing() {
    let (mut connection, mut bare) = beside_bare().await;
    let head = Head {
        payload_bytes: 0xffff_fff0,
        kind: Kind::Data,
        lane: Lane::Bulk,
        device: DeviceNumber(1),
        sequence: 1,
    };
    bare.write_all(&head.encode()).await.expect("room");
    let error = connection.next().await.map(drop).expect_err("too long");
    assert!(matches!(error, Error::Codec(codec::Error::TooLong { .. })), "{error:?}");
    assert_eq!(connection.memory().peak_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_window_is_an_error() {
    let (mut connection, mut bare) = beside_bare().await;
    let device = DeviceNumber(1);
    for sequence in 1..=8 {
        let written = bare.write_all(&frame(Lane::Bulk, 1, &data(1 << 20), sequence)).await;
        if sequence < 8 {
            written.expect("the window covers it");
            connection.next().await.expect("it came");
        }
    }
    assert_eq!(connection.next().await.map(drop), Err(Error::Window { device }));
}
