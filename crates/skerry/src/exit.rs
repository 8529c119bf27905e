//! The end of the program: the one table of exit codes, and the one place that prints an error.

use std::io::Write;

use skerry_api::{Error, ErrorKind};

/// Success.
pub(crate) const DONE: u8 = 0;
/// The command line is malformed.
pub(crate) const USAGE: u8 = 2;

/// Each kind of error and its exit code.
const CODES: [(ErrorKind, u8); 8] = [
    (ErrorKind::Internal, 1),
    (ErrorKind::NotFound, 3),
    (ErrorKind::Exists, 4),
    (ErrorKind::InUse, 5),
    (ErrorKind::Invalid, 6),
    (ErrorKind::Unavailable, 7),
    (ErrorKind::Corrupt, 8),
    (ErrorKind::Fenced, 9),
];

/// The table in `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done                    5  in use: end that first, or say --force
  1  internal error          6  the request is not valid
  2  wrong usage             7  unavailable: the node, the bucket, or a full disk
  3  not found               8  damaged, or of a format that is not known
  4  exists already          9  another node owns it";

/// The code of a kind of error.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    CODES.iter().find(|(of, _)| *of == kind).map_or(1, |(_, code)| *code)
}

/// Prints an error where people look for it. Gives the exit code.
pub(crate) fn report(error: &Error, err: &mut dyn Write) -> u8 {
    // If no person reads errors, the code must do.
    let _ = err.write_all(line(error).as_bytes());
    code(error.kind())
}

/// An error as it is printed.
pub(crate) fn line(error: &Error) -> String {
    format!("skerry: {error}\n")
}

/// Prints the message of the command line's parser (an error, help or the version), in our words.
pub(crate) fn report_usage(error: &clap::Error, err: &mut dyn Write) -> u8 {
    if !error.use_stderr() {
        // Help and version; a reader that has gone needs neither.
        let _ = error.print();
        return DONE;
    }
    let text = error.render().to_string();
    let _ = write!(err, "skerry: {}", text.strip_prefix("error: ").unwrap_or(&text));
    USAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_documented() {
        let documented = [
            (ErrorKind::Internal, 1, "1  internal error"),
            (ErrorKind::NotFound, 3, "3  not found"),
            (ErrorKind::Exists, 4, "4  exists already"),
            (ErrorKind::InUse, 5, "5  in use"),
            (ErrorKind::Fenced, 9, "9  another node owns it"),
            (ErrorKind::Invalid, 6, "6  the request is not valid"),
            (ErrorKind::Unavailable, 7, "7  unavailable"),
            (ErrorKind::Corrupt, 8, "8  damaged"),
        ];
        for (kind, number, line) in documented {
            assert_eq!(code(kind), number, "{kind:?}");
            assert!(HELP.contains(line), "{line}");
        }
    }
}
