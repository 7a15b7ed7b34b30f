//! Lines of a file, bounded, with their numbers.

use god_proto::{MAX_KEY, MAX_VALUE};
use std::io::{self, BufRead, Read as _};

/// The longest line: the largest key and value, each byte written as `\xNN`.
pub const MAX_LINE: usize = 4 * (MAX_KEY + MAX_VALUE) + 1024;

/// What some programs begin a UTF-8 file with; it is no part of the first line.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads lines one after the other into one buffer.
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: u64,
    offset: u64,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Whole(&'a [u8]),
    /// It is longer than [`MAX_LINE`] and was skipped.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, buffer: Vec::new(), number: 0, offset: 0 }
    }

    /// The number of the last line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let most = MAX_LINE as u64 + 1;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.offset += read as u64;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if read as u64 == most {
            self.offset += self.reader.skip_until(b'\n')? as u64;
            return Ok(Some(Line::TooLong));
        }
        let line = &self.buffer[..];
        let line = if self.number == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        Ok(Some(Line::Whole(line)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_last_one_needs_no_end() {
        let mut lines = Lines::new(&b"a\n\nb"[..]);
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"a")));
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"")));
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"b")));
        assert_eq!(lines.number(), 3);
        assert_eq!(lines.offset(), 4);
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line_and_stays_in_others() {
        let mut lines = Lines::new("\u{feff}a\n\u{feff}b".as_bytes());
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"a")));
        assert_eq!(lines.offset(), 5);
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole("\u{feff}b".as_bytes())));
        assert_eq!(Lines::new("\u{feff}".as_bytes()).next_line().unwrap(), Some(Line::Whole(b"")));
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let mut file = vec![b'x'; MAX_LINE + 9];
        file.extend_from_slice(b"\nnext\n");
        let mut lines = Lines::new(&file[..]);
        assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"next")));
        assert_eq!(lines.offset(), file.len() as u64);
    }
}
