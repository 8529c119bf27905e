//! The check of a request's form: a pure function of the request and the device's geometry.
//!
//! A request that passes lies inside the device and is allowed on it. A refused one has no effect.
//! Alignment is no matter of form: a client that never negotiated block sizes may ask for any
//! bytes. Some clients that did (nbdfuse) do so, too. The checks come in the order of a client's
//! interest: the request's meaning, its permission, its place.

use skerry_device::{Error, ErrorKind, Geometry};

use super::wire::{PAYLOAD_BYTES_MAX, Request, command, command_flag as flag};

/// The facts that a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) geometry: Geometry,
    /// Structured replies were negotiated.
    pub(crate) structured: bool,
    /// `base:allocation` was selected for this export.
    pub(crate) allocation: bool,
}

impl Shape {
    pub(crate) fn new(geometry: Geometry, structured: bool, allocation: bool) -> Self {
        Self { geometry, structured, allocation }
    }
}

/// A request that may be given to the device. Offset and length stay in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write { fua: bool },
    Disconnect,
    Flush,
    Zero { fua: bool },
    Cache,
    BlockStatus { one: bool },
}

/// Checks `request`. Gives its command, or the error for the client.
pub(crate) fn check(request: &Request, shape: &Shape) -> Result<Command, Error> {
    let fua = request.flags & flag::FUA != 0;
    let (command, allowed_flags) = match request.command {
        command::READ => (Command::Read, if shape.structured { flag::DF } else { 0 }),
        command::WRITE => (Command::Write { fua }, 0),
        command::DISC => return Ok(Command::Disconnect),
        command::FLUSH => (Command::Flush, 0),
        command::TRIM => (Command::Zero { fua }, 0),
        command::CACHE => (Command::Cache, 0),
        // Devices reserve no space, so a range that must stay allocated gets none either. A later
        // write to it needs room, like any other.
        command::WRITE_ZEROES => (Command::Zero { fua }, flag::NO_HOLE | flag::FAST_ZERO),
        command::BLOCK_STATUS if shape.allocation => {
            let one = request.flags & flag::REQ_ONE != 0;
            (Command::BlockStatus { one }, flag::REQ_ONE)
        }
        command::BLOCK_STATUS => return Err(invalid("no metadata context was selected")),
        _ => return Err(invalid("unknown command")),
    };
    // FUA is allowed with every command, and means nothing to commands that don't write.
    if request.flags & !(allowed_flags | flag::FUA) != 0 {
        return Err(invalid("unknown flags for this command"));
    }
    let writes = matches!(command, Command::Write { .. } | Command::Zero { .. });
    if writes && shape.geometry.read_only {
        return Err(Error::new(ErrorKind::ReadOnly, "the export is read-only"));
    }
    if command != Command::Flush {
        check_range(request, &shape.geometry, command)?;
    }
    if request.flags & allowed_flags & flag::FAST_ZERO != 0 {
        check_fast(request, &shape.geometry)?;
    }
    Ok(command)
}

/// Zeroing is fast in whole sectors: the rest of another one is read, and the whole is written.
/// Zeroing nothing is fast everywhere.
fn check_fast(request: &Request, geometry: &Geometry) -> Result<(), Error> {
    match request.len == 0 || geometry.is_whole(request.offset, u64::from(request.len)) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::NotSupported, "zeroing is fast in whole sectors only")),
    }
}

fn check_range(request: &Request, geometry: &Geometry, command: Command) -> Result<(), Error> {
    let carries_payload = matches!(command, Command::Read | Command::Write { .. });
    if carries_payload && request.len > PAYLOAD_BYTES_MAX {
        return Err(invalid("longer than the maximum of 32 MiB"));
    }
    if let Err(outside) = geometry.check(request.offset, u64::from(request.len)) {
        let grows = matches!(request.command, command::WRITE | command::WRITE_ZEROES);
        let kind = if grows { ErrorKind::NoSpace } else { outside.kind };
        return Err(Error::new(kind, "past the end of the export"));
    }
    if matches!(command, Command::BlockStatus { .. }) && request.len == 0 {
        return Err(invalid("a block status of nothing"));
    }
    Ok(())
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const GEOMETRY: Geometry =
        Geometry { size_bytes: 1 << 20, sector_bytes: 512, block_bytes: 4096, read_only: false };
    const SHAPE: Shape = Shape { geometry: GEOMETRY, structured: true, allocation: true };

    fn kind(command: u16, flags: u16, offset: u64, len: u32, shape: Shape) -> Option<ErrorKind> {
        let request = Request { flags, command, cookie: 0, offset, len };
        check(&request, &shape).err().map(|e| e.kind)
    }

    #[test]
    fn whatever_passes_is_inside_and_allowed() {
        const SEED: u64 = 0x5eed_0002;
        let mut rng = StdRng::seed_from_u64(SEED);
        let mut passed = 0;
        for _ in 0..100_000 {
            let geometry = Geometry { read_only: rng.random(), ..GEOMETRY };
            let shape = Shape { geometry, ..SHAPE };
            let near_end = rng.random_range(0..1 << 21);
            let request = Request {
                flags: rng.random_range(0..64),
                command: rng.random_range(0..10),
                cookie: 0,
                offset: if rng.random() { near_end } else { rng.random() },
                len: if rng.random() { rng.random_range(0..1 << 15) } else { rng.random() },
            };
            let Ok(command) = check(&request, &shape) else { continue };
            passed += 1;
            if matches!(command, Command::Flush | Command::Disconnect) {
                continue;
            }
            let end = request.offset + u64::from(request.len);
            assert!(end <= geometry.size_bytes, "seed {SEED}: {request:?}");
            let reads =
                matches!(command, Command::Read | Command::Cache | Command::BlockStatus { .. });
            assert!(reads || !geometry.read_only, "seed {SEED}: {request:?}");
        }
        assert!(passed > 1000, "the test tests something: {passed}");
    }

    #[test]
    fn ends_and_overflows() {
        let size = GEOMETRY.size_bytes;
        assert_eq!(kind(command::READ, 0, size, 0, SHAPE), None);
        assert_eq!(kind(command::READ, 0, size, 512, SHAPE), Some(ErrorKind::Invalid));
        assert_eq!(kind(command::WRITE, 0, size, 512, SHAPE), Some(ErrorKind::NoSpace));
        assert_eq!(kind(command::WRITE_ZEROES, 0, size, 512, SHAPE), Some(ErrorKind::NoSpace));
        assert_eq!(kind(command::TRIM, 0, size, 512, SHAPE), Some(ErrorKind::Invalid));
        let last = u64::MAX - 511;
        assert_eq!(kind(command::READ, 0, last, 512, SHAPE), Some(ErrorKind::Invalid));
        let big = Shape { geometry: Geometry { size_bytes: 1 << 40, ..GEOMETRY }, ..SHAPE };
        assert_eq!(kind(command::READ, 0, 0, PAYLOAD_BYTES_MAX, big), None);
        let over = PAYLOAD_BYTES_MAX + 512;
        assert_eq!(kind(command::READ, 0, 0, over, big), Some(ErrorKind::Invalid));
        assert_eq!(kind(command::TRIM, 0, 0, u32::MAX - 511, big), None);
    }

    #[test]
    fn flags_belong_to_commands() {
        assert_eq!(kind(command::READ, flag::DF, 0, 512, SHAPE), None);
        let simple = Shape { structured: false, ..SHAPE };
        assert_eq!(kind(command::READ, flag::DF, 0, 512, simple), Some(ErrorKind::Invalid));
        assert_eq!(kind(command::READ, flag::FUA, 0, 512, SHAPE), None);
        assert_eq!(kind(command::TRIM, flag::NO_HOLE, 0, 512, SHAPE), Some(ErrorKind::Invalid));
        assert_eq!(kind(command::FLUSH, flag::FUA, 7, 7, SHAPE), None);
        assert_eq!(kind(8, 0, 0, 512, SHAPE), Some(ErrorKind::Invalid));
        let without = Shape { allocation: false, ..SHAPE };
        assert_eq!(kind(command::BLOCK_STATUS, 0, 0, 512, without), Some(ErrorKind::Invalid));
    }

    #[test]
    fn zeroing_is_fast_in_whole_sectors_only() {
        let fast = flag::FAST_ZERO;
        for (offset, len) in [(1, 511), (512, 100), (100, 1024), (0, 513)] {
            let slow = kind(command::WRITE_ZEROES, fast, offset, len, SHAPE);
            assert_eq!(slow, Some(ErrorKind::NotSupported), "{offset}, {len}");
            assert_eq!(kind(command::WRITE_ZEROES, 0, offset, len, SHAPE), None);
        }
        for flags in [fast, fast | flag::NO_HOLE] {
            assert_eq!(kind(command::WRITE_ZEROES, flags, 512, 1024, SHAPE), None);
            assert_eq!(kind(command::WRITE_ZEROES, flags, 100, 0, SHAPE), None);
        }
    }
}
