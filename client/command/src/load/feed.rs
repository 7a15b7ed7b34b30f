//! Reading the file: on a thread of its own, ahead of the writes, by a bounded number of lines.

use crate::{
    failure::Failure,
    records::{FileRecord, Format, Line, Lines, MAX_LINE, Syntax},
    text::Encoding,
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Lines read ahead of the writes.
const READ_AHEAD: usize = 1_024;
const BUFFER: usize = 256 << 10;

/// A file and how to read it.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    format: Format,
    raw: bool,
    encodings: (Encoding, Encoding),
}

/// What the reader hands on.
#[derive(Debug)]
pub enum Fed {
    /// A record, and how many bytes of the file are read with it.
    Record { line: u64, offset: u64, record: FileRecord },
    /// A line that is none.
    Bad { line: u64, problem: String },
    /// The file cannot be read on.
    Failed(io::Error),
}

impl Source {
    pub fn new(path: &Path, format: Format, raw: bool, encodings: (Encoding, Encoding)) -> Source {
        Source { path: path.to_owned(), format, raw, encodings }
    }

    /// Whether it can be read but once.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Its length in bytes, where it has one.
    pub fn length(&self) -> Option<u64> {
        let meta = std::fs::metadata(&self.path).ok().filter(|meta| meta.is_file() && !self.is_stdin());
        meta.map(|meta| meta.len())
    }

    /// A failure to read it.
    pub fn failed(&self, error: &io::Error) -> Failure {
        let name = if self.is_stdin() { "stdin".into() } else { self.path.to_string_lossy() };
        Failure::Usage(format!("cannot read {name}: {error}"))
    }

    /// Starts reading. Fails at once where the file cannot be opened.
    pub fn feed(&self) -> Result<mpsc::Receiver<Fed>, Failure> {
        let reader: Box<dyn io::Read + Send> = if self.is_stdin() {
            Box::new(io::stdin())
        } else {
            let file = File::open(&self.path).and_then(|file| {
                if file.metadata()?.is_dir() { Err(io::Error::other("it is a directory")) } else { Ok(file) }
            });
            Box::new(file.map_err(|error| self.failed(&error))?)
        };
        let (tell, fed) = mpsc::channel(READ_AHEAD);
        let source = self.clone();
        // Ends by itself once nobody listens.
        tokio::task::spawn_blocking(move || source.read(BufReader::with_capacity(BUFFER, reader), &tell));
        Ok(fed)
    }

    fn syntax(&self, first: &[u8]) -> Syntax {
        let name = (!self.is_stdin()).then_some(self.path.as_path());
        let format = self.format.resolve(name, first);
        Syntax { format, key: self.encodings.0, value: self.encodings.1, raw: self.raw }
    }

    fn read(&self, reader: impl BufRead, tell: &mpsc::Sender<Fed>) {
        let mut lines = Lines::new(reader);
        let mut settled = None;
        loop {
            let number = lines.number() + 1;
            let parsed = match lines.next_line() {
                // A blank line is skipped in any format, and tells of none.
                Ok(Some(Line::Whole(b""))) => continue,
                Ok(Some(Line::Whole(b"\r"))) if !self.raw => continue,
                Ok(Some(Line::Whole(line))) => {
                    let syntax = settled.get_or_insert_with(|| self.syntax(line));
                    if let Some(why) = syntax.no_text(line) {
                        let error = io::Error::other(format!("line {number} {why}"));
                        let _ = tell.blocking_send(Fed::Failed(error));
                        return;
                    }
                    syntax.parse(line)
                }
                Ok(Some(Line::TooLong)) => Err(format!("it has more than {MAX_LINE} bytes")),
                Ok(None) => return,
                Err(error) => {
                    let _ = tell.blocking_send(Fed::Failed(error));
                    return;
                }
            };
            let (line, offset) = (lines.number(), lines.offset());
            let fed = match parsed {
                Ok(None) => continue,
                Ok(Some(record)) => Fed::Record { line, offset, record },
                Err(problem) => Fed::Bad { line, problem },
            };
            if tell.blocking_send(fed).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn records_come_in_order_and_a_bad_line_is_told_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.tsv");
        std::fs::write(&path, "a\t1\n\nbad\nb\t2").unwrap();
        let source = Source::new(&path, Format::Auto, false, (Encoding::Text, Encoding::Text));
        assert_eq!(source.length(), Some(12));
        let mut fed = source.feed().unwrap();
        assert!(matches!(fed.recv().await, Some(Fed::Record { line: 1, offset: 4, .. })));
        assert!(matches!(fed.recv().await, Some(Fed::Bad { line: 3, .. })));
        let Some(Fed::Record { line, offset, record }) = fed.recv().await else { panic!("no record") };
        assert_eq!((line, offset, &record.key[..], &record.value[..]), (4, 12, &b"b"[..], &b"2"[..]));
        assert!(fed.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_a_failure_at_once() {
        for path in ["/nowhere/at/all", "/tmp"] {
            let source = Source::new(Path::new(path), Format::Auto, false, (Encoding::Text, Encoding::Text));
            assert!(source.feed().unwrap_err().to_string().contains(path));
        }
    }
}
