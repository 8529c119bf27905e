//! A store that fails for a while under a node and its clients: nobody sees an error, and nothing goes out of service.

use std::error::Error;
use std::io;
use std::thread;

use skerry_testkit::s3_faults::{Call, Fault};
use skerry_testkit::{BadS3, NbdClient, NodeSettings};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// What is compressed and fetched at once, bytes.
const FRAME: usize = 64 << 10;
/// As long as the test says.
const EVER: u64 = u64::MAX;
/// Calls that fail before the store is mended: more than the bucket's door makes by itself.
const CALLS: u64 = 12;

const FAULTS: [Fault; 7] = [
    Fault::Refuse(503, "SlowDown"),
    Fault::Refuse(403, "RequestTimeTooSkewed"),
    Fault::Refuse(403, "AccessDenied"),
    Fault::Refuse(400, "ExpiredToken"),
    Fault::Refuse(404, "NoSuchBucket"),
    Fault::CutBody,
    Fault::LoseAnswer,
];

/// A node whose bucket is on the server, and nothing else.
fn settings(server: &BadS3, dir: &TempDir) -> io::Result<NodeSettings> {
    let config = dir.path().join("skerry.toml");
    std::fs::write(&config, "[jobs]\nenabled = false\n[destage]\ndirty_age_s = 1\n")?;
    let settings = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), dir.path().join("data"));
    let settings = settings.arg("--bucket").arg("s3://things/p").arg("--config").arg(config);
    Ok(server.options().into_iter().fold(settings, |settings, (name, value)| {
        settings.env(format!("AWS_{}", name.to_ascii_uppercase()), value)
    }))
}

/// Bytes that don't compress, another each time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_client_waits_for_every_fault_that_can_pass() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let settings = settings(&server, &dir)?;
    let node = settings.start()?;
    let uri = node.create("disk", "4M", &[])?;
    let all = noise(1, FAULTS.len() * FRAME);
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &all)?;
    client.flush()?;
    drop(client);
    node.stop()?;
    std::fs::remove_dir_all(dir.path().join("data/cache"))?;

    let node = settings.start()?;
    let mut client = NbdClient::connect(&uri)?;
    // Backwards: nobody reads ahead.
    for (number, fault) in FAULTS.into_iter().enumerate().rev() {
        let offset = number * FRAME;
        let before = server.failed();
        server.fail(Call::Read, fault, EVER);
        let reading = thread::spawn(move || {
            let read = client.read(offset as u64, FRAME as u32);
            (client, read)
        });
        server.wait_failed(before + CALLS)?;
        server.mend();
        let (back, read) = reading.join().map_err(|_| "the reader panicked")?;
        client = back;
        assert!(read? == all[offset..offset + FRAME], "{fault:?}");
    }
    node.stop()?;
    Ok(())
}

/// A small write waits for the rest of its block, which the store says is not there; nor is anything else.
#[test]
fn a_bucket_that_was_away_takes_no_volume_out_of_service() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let settings = settings(&server, &dir)?;
    let node = settings.start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &noise(2, FRAME))?;
    client.flush()?;
    drop(client);
    node.stop()?;
    std::fs::remove_dir_all(dir.path().join("data/cache"))?;

    let node = settings.start()?;
    let mut client = NbdClient::connect(&uri)?;
    for call in [Call::Read, Call::Write, Call::List, Call::Delete] {
        server.fail(call, Fault::Refuse(404, "NoSuchBucket"), EVER);
    }
    client.write(512, &[2; 512])?;
    client.flush()?;
    server.wait_failed(2 * CALLS)?;
    let told = node.json(&["status"])?;
    assert!(
        told["bucket_failure"].as_str().is_some_and(|text| text.contains("not there")),
        "{told}"
    );
    server.mend();
    client.write(8192, &[3; 512])?;
    client.flush()?;
    let mut other = NbdClient::connect(&uri)?;
    assert_eq!(other.read(512, 512)?, vec![2; 512]);
    assert_eq!(node.json(&["status"])?["parked"], serde_json::json!([]));
    node.stop()?;
    let node = settings.start()?;
    assert_eq!(NbdClient::connect(&uri)?.read(8192, 512)?, vec![3; 512]);
    node.stop()?;
    Ok(())
}
