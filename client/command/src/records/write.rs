//! A key and its value as a line.

use super::json::put_field;
use crate::text::Encoding;
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::io::{self, Write};

/// A format to write; `load` reads what it writes back to the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WriteFormat {
    /// key<TAB>value
    Tsv,
    /// {"key": …, "value": …}, one a line; `key_base64` and `value_base64` for text that is not UTF-8
    Jsonl,
}

/// A key, and its value if there is one to show, as a JSON object.
pub fn entry_json(encodings: (Encoding, Encoding), key: &[u8], value: Option<&[u8]>) -> Map<String, Value> {
    let mut object = Map::new();
    put_field(&mut object, "key", encodings.0, key);
    if let Some(value) = value {
        put_field(&mut object, "value", encodings.1, value);
    }
    object
}

/// Writes a line.
pub fn write_entry(
    out: &mut impl Write,
    format: WriteFormat,
    encodings: (Encoding, Encoding),
    key: &[u8],
    value: Option<&[u8]>,
) -> io::Result<()> {
    match format {
        WriteFormat::Tsv => {
            out.write_all(encodings.0.encode_field(key).as_bytes())?;
            if let Some(value) = value {
                out.write_all(b"\t")?;
                out.write_all(encodings.1.encode_field(value).as_bytes())?;
            }
        }
        WriteFormat::Jsonl => serde_json::to_writer(&mut *out, &entry_json(encodings, key, value))?,
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::records::{FileRecord, Line, Lines, Syntax, parse::FileFormat};
    use proptest::{collection::vec, prelude::*, sample::select};

    /// Bytes that lines, escapes and JSON are sensitive to, among any others.
    fn bytes(from: usize) -> impl Strategy<Value = Vec<u8>> {
        let delicate = select(b"\\\t\n\r\x00x{}\",\xc3\xa9\xff ".to_vec());
        vec(prop_oneof![delicate, any::<u8>()], from..24)
    }

    proptest! {
        #[test]
        fn what_export_writes_load_reads_back_to_the_same_bytes(
            entries in vec((bytes(1), bytes(0)), 0..12),
            key in select(vec![Encoding::Text, Encoding::Hex, Encoding::Base64]),
            value in select(vec![Encoding::Text, Encoding::Hex, Encoding::Base64]),
            format in select(vec![WriteFormat::Tsv, WriteFormat::Jsonl]),
        ) {
            let mut file = Vec::new();
            for entry in &entries {
                write_entry(&mut file, format, (key, value), &entry.0, Some(&entry.1)).unwrap();
            }
            let format = match format {
                WriteFormat::Tsv => FileFormat::Tsv,
                WriteFormat::Jsonl => FileFormat::Jsonl,
            };
            let syntax = Syntax { format, key, value, raw: false };
            let mut lines = Lines::new(&file[..]);
            let mut read = Vec::new();
            while let Some(line) = lines.next_line().unwrap() {
                let Line::Whole(line) = line else { panic!("too long") };
                read.push(syntax.parse(line).unwrap().unwrap());
            }
            let wrote: Vec<_> =
                entries.into_iter().map(|(key, value)| FileRecord { key: key.into(), value: value.into() }).collect();
            prop_assert_eq!(read, wrote);
        }
    }
}
