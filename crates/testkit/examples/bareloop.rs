//! Measures a disk without any server: `bareloop append|overwrite FILE SECONDS` writes 4 KiB and
//! calls fdatasync, over and over, and prints the rate.
//!
//! `append` lets the file grow. `overwrite` goes round a file that was filled before, so that a
//! sync has no change of size to record.

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;
const FILE_BLOCKS: u64 = 16 * 1024;

// A benchmark measures time.
#[allow(clippy::disallowed_methods)]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, path, seconds] = &args[..] else {
        return Err("usage: bareloop append|overwrite FILE SECONDS".into());
    };
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let wraps = mode == "overwrite";
    if wraps {
        for at in 0..FILE_BLOCKS {
            file.write_all_at(&block, at * BLOCK_BYTES as u64)?;
        }
        file.sync_all()?;
    }
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds.parse()?));
    let mut count: u64 = 0;
    while start.elapsed() < limit {
        block[..8].copy_from_slice(&count.to_le_bytes());
        let at = if wraps { count % FILE_BLOCKS } else { count };
        file.write_all_at(&block, at * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        count += 1;
    }
    println!("{:.1}", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
