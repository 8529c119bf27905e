//! The output of commands: one JSON document, or text for people.
//!
//! The documents' fields are a promise to scripts; a test holds them.

pub(crate) mod job_document;
pub(crate) mod job_limit;
pub(crate) mod job_nodes;
pub(crate) mod jobs;
pub(crate) mod node;
pub(crate) mod schedules;
pub(crate) mod volumes;

use std::io::{self, Write};

use serde::Serialize;
use skerry_api::{Error, ErrorKind, Result, v1};

use crate::values::{human_bytes, time};

/// The destination and form of a command's output.
pub(crate) struct Output<'a> {
    /// One JSON document instead of text.
    pub(crate) json: bool,
    /// Standard output.
    pub(crate) out: &'a mut dyn Write,
}

impl Output<'_> {
    /// Prints `document` as JSON, or `text` for people.
    pub(crate) fn print(&mut self, document: &impl Serialize, text: &str) -> Result<()> {
        let written = if self.json {
            serde_json::to_writer_pretty(&mut *self.out, document)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"))
        } else {
            self.out.write_all(text.as_bytes())
        };
        match written.and_then(|()| self.out.flush()) {
            // The reader has all that it wanted.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let message = format!("standard output can't be written: {error}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            _ => Ok(()),
        }
    }
}

/// A snapshot, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotDocument<'a> {
    name: &'a str,
    volume: &'a str,
    created_at: String,
    size_bytes: u64,
    state: &'static str,
}

impl<'a> From<&'a v1::Snapshot> for SnapshotDocument<'a> {
    fn from(snapshot: &'a v1::Snapshot) -> Self {
        Self {
            name: &snapshot.name,
            volume: &snapshot.volume,
            created_at: time(snapshot.created_ms),
            size_bytes: snapshot.size_bytes,
            state: state_word(snapshot.state()),
        }
    }
}

/// A range in which two snapshots differ, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct DiffDocument {
    offset: u64,
    length: u64,
    zero: bool,
}

impl From<&v1::DiffRange> for DiffDocument {
    fn from(range: &v1::DiffRange) -> Self {
        Self { offset: range.offset, length: range.length, zero: range.zero }
    }
}

/// A flush level, in a word.
pub(crate) fn flush_word(flush: v1::FlushLevel) -> &'static str {
    match flush {
        v1::FlushLevel::Local => "local",
        v1::FlushLevel::Bucket => "bucket",
        v1::FlushLevel::Unspecified => "unknown",
    }
}

/// The state of a snapshot, in a word.
pub(crate) fn state_word(state: v1::SnapshotState) -> &'static str {
    match state {
        v1::SnapshotState::Pending => "pending",
        v1::SnapshotState::Published => "published",
        v1::SnapshotState::Materialised => "materialised",
        v1::SnapshotState::Unspecified => "unknown",
    }
}

/// Converts all of them to documents.
pub(crate) fn documents<'a, T, D: From<&'a T>>(all: &'a [T]) -> Vec<D> {
    all.iter().map(D::from).collect()
}

/// A table for people: a heading, and rows with as many cells.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(heading[column].len())
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let heading = line(heading);
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(heading).chain(rows).collect()
}

/// A size for people, and in bytes.
pub(crate) fn exact_bytes(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", human_bytes(bytes))
}

/// Keys and values, one a line.
pub(crate) fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    pairs.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}

/// Snapshots, for people.
pub(crate) fn snapshot_table(snapshots: &[v1::Snapshot]) -> String {
    let rows: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            [
                format!("{}@{}", snapshot.volume, snapshot.name),
                human_bytes(snapshot.size_bytes),
                time(snapshot.created_ms),
                state_word(snapshot.state()).to_owned(),
            ]
        })
        .collect();
    table(["NAME", "SIZE", "CREATED", "STATE"], &rows)
}

/// Ranges that differ, for people.
pub(crate) fn diff_table(ranges: &[v1::DiffRange]) -> String {
    let rows: Vec<_> = ranges
        .iter()
        .map(|range| {
            let what = if range.zero { "zero" } else { "data" };
            [range.offset.to_string(), range.length.to_string(), what.to_owned()]
        })
        .collect();
    table(["OFFSET", "LENGTH", "CONTENT"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [["a".to_owned(), "1".to_owned()], ["bcd".to_owned(), "2".to_owned()]];
        assert_eq!(table(["N", "SIZE"], &rows), "N    SIZE\na    1\nbcd  2\n");
    }
}
