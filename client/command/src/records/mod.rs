//! Files of keys and values: their formats, read and written line by line.

mod json;
mod line;
mod parse;
mod sample;
mod write;

pub use line::{Line, Lines, MAX_LINE};
pub use parse::{FileFormat, Format, Syntax};
pub use sample::Sample;
pub use write::{WriteFormat, entry_json, write_entry};

use bytes::Bytes;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    pub key: Bytes,
    pub value: Bytes,
}
