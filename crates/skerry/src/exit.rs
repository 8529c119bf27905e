//! The end of the program: the one table of exit codes, and the one place that prints an error.

use std::io::Write;

use serde_json::json;
use skerry_api::{Error, ErrorKind};

/// Success.
pub(crate) const DONE: u8 = 0;
/// The command line is malformed.
pub(crate) const USAGE: u8 = 2;

/// Each kind of error, its exit code, and its word in JSON.
const CODES: [(ErrorKind, u8, &str); 8] = [
    (ErrorKind::Internal, 1, "internal"),
    (ErrorKind::NotFound, 3, "not_found"),
    (ErrorKind::Exists, 4, "exists"),
    (ErrorKind::InUse, 5, "in_use"),
    (ErrorKind::Invalid, 6, "invalid"),
    (ErrorKind::Unavailable, 7, "unavailable"),
    (ErrorKind::Corrupt, 8, "corrupt"),
    (ErrorKind::Fenced, 9, "fenced"),
];
/// The word of [`USAGE`] in JSON.
const USAGE_WORD: &str = "usage";

/// The table in `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done                    5  in use: end that first, or say --force
  1  internal error          6  the request is not valid
  2  wrong usage             7  unavailable: the node, the bucket, or a full disk
  3  not found               8  damaged, or of a format that is not known
  4  exists already          9  another node owns it";

/// The form of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One line for people.
    Text,
    /// One line with a JSON document.
    Json,
}

impl Form {
    /// The form that a command with or without `--json` prints.
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// The code of a kind of error.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    row(kind).0
}

fn row(kind: ErrorKind) -> (u8, &'static str) {
    let row = CODES.iter().find(|(of, ..)| *of == kind);
    row.map_or((1, "internal"), |(_, code, word)| (*code, *word))
}

/// Prints an error where people look for it. Gives the exit code.
pub(crate) fn report(error: &Error, form: Form, err: &mut dyn Write) -> u8 {
    // If no person reads errors, the code must do.
    let _ = err.write_all(line(error, form).as_bytes());
    code(error.kind())
}

/// An error as it is printed.
pub(crate) fn line(error: &Error, form: Form) -> String {
    let (code, word) = row(error.kind());
    match form {
        Form::Text => format!("skerry: {error}\n"),
        Form::Json => document(word, error.message(), code),
    }
}

fn document(kind: &str, message: &str, code: u8) -> String {
    let error = json!({ "kind": kind, "message": message, "exit_code": code });
    format!("{}\n", json!({ "error": error }))
}

/// Prints the message of the command line's parser (an error, help or the version), in our words.
pub(crate) fn report_usage(error: &clap::Error, form: Form, err: &mut dyn Write) -> u8 {
    if !error.use_stderr() {
        // Help and version; a reader that has gone needs neither.
        let _ = error.print();
        return DONE;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let line = match form {
        Form::Text => format!("skerry: {text}"),
        // Without the lines about usage.
        Form::Json => document(USAGE_WORD, text.split("\n\n").next().unwrap_or(text).trim(), USAGE),
    };
    let _ = err.write_all(line.as_bytes());
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
