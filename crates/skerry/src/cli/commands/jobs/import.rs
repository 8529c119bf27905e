//! `jobs import`: jobs from a file, one JSON document a line.
//!
//! The command sends the lines in parts. A job whose id is there already is not enqueued again, so
//! an import that was interrupted is repeated.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_client::Jobs;

use crate::cli::args::jobs::ImportJobsArgs;
use crate::cli::commands::Context;
use crate::cli::output::job_document::JobDocument;
use crate::values::{STANDARD, invalid};

/// The longest line, bytes: room for a job in Base64 with its history.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The lines after which a part is sent, and their bytes.
const PART_LINES: usize = 1000;
const PART_BYTES: usize = 4 << 20;
/// The most refused lines in the document.
const REFUSED_MAX: usize = 10_000;

/// The outcome of an import, as a document.
#[derive(Debug, Default, Serialize)]
struct Imported {
    imported: u64,
    existing: u64,
    refused: Vec<RefusedLine>,
    refused_total: u64,
}

/// A line that was refused, as a document.
#[derive(Debug, Serialize)]
struct RefusedLine {
    line: u64,
    reason: String,
}

/// Jobs that are sent together, each with the number of its line.
#[derive(Default)]
struct Part {
    jobs: Vec<(u64, v1::Job)>,
    bytes: usize,
}

/// An import that is under way.
struct Import {
    jobs: Jobs,
    args: ImportJobsArgs,
    said: Imported,
}

/// Imports the jobs of a file.
pub(super) async fn run(context: &mut Context<'_>, args: ImportJobsArgs) -> Result<()> {
    let mut lines = open(&args.file)?;
    let jobs = Jobs::connect(&context.address).await?;
    let mut import = Import { jobs, args, said: Imported::default() };
    let done = import.all(&mut lines).await;
    let Imported { imported, existing, refused_total, .. } = &import.said;
    let mut text = format!("imported {imported} jobs; {existing} were there already\n");
    if *refused_total > 0 {
        text += &format!("refused {refused_total} lines\n");
    }
    context.output.print(&import.said, &text)?;
    done?;
    match refused_total {
        0 => Ok(()),
        lines => Err(invalid(format!("{lines} lines were refused"))),
    }
}

impl Import {
    async fn all(&mut self, lines: &mut dyn BufRead) -> Result<()> {
        let (mut part, mut line) = (Part::default(), Vec::new());
        for number in 1.. {
            let read = read_line(lines, &mut line);
            let more = read.map_err(|error| unreadable(&self.args.file, &error))?;
            if line.len() as u64 > LINE_BYTES_MAX {
                // The rest of the line can't be told from a line.
                self.send(std::mem::take(&mut part)).await?;
                return Err(invalid(format!("line {number} has more than 16 MiB")));
            }
            if !line.trim_ascii().is_empty() {
                match self.job(&line) {
                    Ok(job) => {
                        part.bytes += line.len();
                        part.jobs.push((number, job));
                    }
                    Err(error) => {
                        // What comes before it is enqueued even if this is the end.
                        self.send(std::mem::take(&mut part)).await?;
                        self.refuse(number, &error)?;
                    }
                }
            }
            if !more || part.bytes >= PART_BYTES || part.jobs.len() >= PART_LINES {
                self.send(std::mem::take(&mut part)).await?;
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// The job of a line.
    fn job(&self, line: &[u8]) -> Result<v1::Job> {
        let document: JobDocument = serde_json::from_slice(line).map_err(invalid)?;
        let mut job = document.into_job(Timestamp::now())?;
        if let (Some(prefix), Some(spec)) = (&self.args.id_prefix, &mut job.spec)
            && is_given(&spec.id)
        {
            spec.id.insert_str(0, prefix);
        }
        Ok(job)
    }

    async fn send(&mut self, part: Part) -> Result<()> {
        let (numbers, jobs): (Vec<_>, Vec<_>) = part.jobs.into_iter().unzip();
        let Some(first) = numbers.first() else { return Ok(()) };
        let answers = self.jobs.import_all(jobs).await.map_err(|error| {
            let message = format!("from line {first} on: {error}; repeat the command");
            Error::new(error.kind(), message)
        })?;
        let mut first_refused = Ok(());
        for (number, answer) in numbers.into_iter().zip(answers) {
            let refused = match answer {
                Ok(job) if job.is_new => {
                    self.said.imported += 1;
                    Ok(())
                }
                Ok(_) => {
                    self.said.existing += 1;
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let message = format!("line {number}: {error}; repeat the command");
                    Err(Error::new(error.kind(), message))
                }
                Err(error) => self.refuse(number, &error),
            };
            // The other jobs of the part are there as well.
            first_refused = first_refused.and(refused);
        }
        first_refused
    }

    /// Notes a refused line, or ends the import with it.
    fn refuse(&mut self, line: u64, error: &Error) -> Result<()> {
        if !self.args.keep_going {
            let message = format!("line {line}: {error}");
            return Err(Error::new(error.kind(), message));
        }
        let reason = error.to_string();
        eprintln!("skerry: line {line}: {reason}");
        self.said.refused_total += 1;
        if self.said.refused.len() < REFUSED_MAX {
            self.said.refused.push(RefusedLine { line, reason });
        }
        Ok(())
    }
}

/// True for an id that a node gave, in its present form or in the form before.
fn is_given(id: &str) -> bool {
    let digits = id.strip_prefix('_').filter(|digits| digits.len() == 16);
    let digits = digits.or_else(|| id.strip_prefix('~').filter(|digits| !digits.is_empty()));
    let is_digit = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    digits.is_some_and(|digits| digits.bytes().all(is_digit))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path.as_os_str() == STANDARD {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Ok(Box::new(BufReader::new(file)))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    invalid(format!("{} can't be read: {error}", path.display()))
}

/// Reads the next line, but no more of it than is allowed and a byte. False after the last line.
fn read_line(lines: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = lines.take(LINE_BYTES_MAX + 1).read_until(b'\n', line)?;
    Ok(read > 0)
}
