//! A line's key and value.

use super::{Record, json};
use crate::text::{Encoding, shown};
use bytes::Bytes;
use clap::ValueEnum;
use god_proto::{MAX_KEY, MAX_VALUE};
use std::path::Path;

/// A format as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// By the file's name, else by its first line
    #[default]
    Auto,
    /// key<TAB>value
    Tsv,
    /// {"key": …, "value": …}, one a line
    Jsonl,
    /// Unicode's UnicodeData.txt: key "NAME U+CODE", value the character's line
    Unicode,
}

/// A format as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Tsv,
    Jsonl,
    Unicode,
}

/// How to read lines.
#[derive(Clone, Copy, Debug)]
pub struct Syntax {
    pub format: FileFormat,
    pub key: Encoding,
    pub value: Encoding,
    /// Text has no escapes.
    pub raw: bool,
}

impl Format {
    /// Settles `auto` by a file's name and the beginning of its first line.
    pub fn settle(self, name: Option<&Path>, beginning: &[u8]) -> FileFormat {
        match self {
            Format::Tsv => return FileFormat::Tsv,
            Format::Jsonl => return FileFormat::Jsonl,
            Format::Unicode => return FileFormat::Unicode,
            Format::Auto => {}
        }
        if let Some(format) = name.and_then(FileFormat::of_name) {
            return format;
        }
        let line = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.first() == Some(&b'{') {
            FileFormat::Jsonl
        } else if is_unicode_data(line) {
            FileFormat::Unicode
        } else {
            FileFormat::Tsv
        }
    }
}

impl FileFormat {
    /// What a file's ending says of it, in capitals or not: the same for what is read and what is written.
    pub fn of_name(file: &Path) -> Option<FileFormat> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Some(FileFormat::Tsv),
            "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
            _ => None,
        }
    }
}

/// Fifteen fields, the first one a code point.
fn is_unicode_data(line: &[u8]) -> bool {
    let mut fields = line.split(|byte| *byte == b';');
    let code = fields.next().unwrap_or_default();
    (4..=6).contains(&code.len()) && code.iter().all(u8::is_ascii_hexdigit) && fields.count() == 14
}

impl Syntax {
    /// Reads a line. `None`: it is blank.
    pub fn parse(self, line: &[u8]) -> Result<Option<Record>, String> {
        // A written line has its \r as an escape; a bare one at the end is a line's end from elsewhere.
        let line = if self.raw { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        if line.is_empty() {
            return Ok(None);
        }
        let record = match self.format {
            FileFormat::Tsv => self.tsv(line)?,
            FileFormat::Jsonl => json::parse(line, self.key, self.value)?,
            FileFormat::Unicode => unicode(line)?,
        };
        match (record.key.len(), record.value.len()) {
            (0, _) => Err("the key is empty; a key has at least one byte".to_owned()),
            (len, _) if len > MAX_KEY => Err(format!("the key has {len} bytes; the most is {MAX_KEY}")),
            (_, len) if len > MAX_VALUE => Err(format!("the value has {len} bytes; the most is {MAX_VALUE}")),
            _ => Ok(Some(record)),
        }
    }

    fn tsv(self, line: &[u8]) -> Result<Record, String> {
        let tab = line.iter().position(|byte| *byte == b'\t');
        let (key, value) = tab
            .and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
            .ok_or_else(|| format!("no tab between key and value in {:?}", shown(line)))?;
        let field = |encoding: Encoding, text| {
            if self.raw { encoding.decode(text) } else { encoding.decode_field(text) }
        };
        let key = field(self.key, key).map_err(|problem| format!("the key: {problem}"))?;
        let value = field(self.value, value).map_err(|problem| format!("the value: {problem}"))?;
        Ok(Record { key, value })
    }
}

/// A character's name is not its own alone (`<control>` has 65 of them): the code point makes it so.
fn unicode(line: &[u8]) -> Result<Record, String> {
    let mut fields = line.split(|byte| *byte == b';');
    let (Some(code), Some(name)) = (fields.next(), fields.next()) else {
        return Err(format!("no CODE;NAME;… in {:?}", shown(line)));
    };
    if code.is_empty() || name.is_empty() || !code.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("no CODE;NAME;… in {:?}", shown(line)));
    }
    let key = [name, b" U+", code].concat();
    Ok(Record { key: key.into(), value: Bytes::copy_from_slice(line) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]
    use super::*;

    fn syntax(format: FileFormat) -> Syntax {
        Syntax { format, key: Encoding::Text, value: Encoding::Text, raw: false }
    }

    fn pair(key: &str, value: &str) -> Option<Record> {
        Some(Record { key: key.to_owned().into(), value: value.to_owned().into() })
    }

    #[test]
    fn a_line_of_tsv_is_cut_at_its_first_tab() {
        let tsv = syntax(FileFormat::Tsv);
        assert_eq!(tsv.parse(b"k\tv\tw\r").unwrap(), pair("k", "v\tw"));
        assert_eq!(tsv.parse(b"k\t").unwrap(), pair("k", ""));
        assert_eq!(tsv.parse(b"").unwrap(), None);
        assert!(tsv.parse(b"k").unwrap_err().contains("no tab"));
        assert!(tsv.parse(b"\tv").unwrap_err().contains("empty"));
        assert!(
            tsv.parse(&[&[b'k'; MAX_KEY + 1][..], b"\tv"].concat()).unwrap_err().contains("most is 4096")
        );
        assert!(tsv.parse(&[&[b'k'; MAX_KEY][..], b"\tv"].concat()).is_ok());
    }

    #[test]
    fn raw_lines_are_taken_as_they_are() {
        let raw = Syntax { raw: true, ..syntax(FileFormat::Tsv) };
        assert_eq!(raw.parse(b"k\\d\t\\x\r").unwrap(), pair("k\\d", "\\x\r"));
    }

    #[test]
    fn characters_that_share_a_name_have_keys_of_their_own() {
        let unicode = syntax(FileFormat::Unicode);
        let line = "0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;";
        assert_eq!(unicode.parse(line.as_bytes()).unwrap(), pair("LATIN CAPITAL LETTER A U+0041", line));
        let first = unicode.parse(b"0000;<control>;Cc;0;BN;;;;;N;NULL;;;;").unwrap().unwrap();
        let second = unicode.parse(b"0001;<control>;Cc;0;BN;;;;;N;START OF HEADING;;;;").unwrap().unwrap();
        assert_ne!(first.key, second.key);
        assert!(unicode.parse(b"no code").is_err());
    }

    #[test]
    fn a_format_is_known_by_the_files_name_or_its_first_line() {
        let settle = |name: &str, line: &str| Format::Auto.settle(Some(Path::new(name)), line.as_bytes());
        assert_eq!(settle("a.tsv", "{"), FileFormat::Tsv);
        assert_eq!(settle("a.NDJSON", "k\tv"), FileFormat::Jsonl);
        assert_eq!(settle("a.txt", "{\"key\": 1}\nk\tv"), FileFormat::Jsonl);
        assert_eq!(
            settle("UnicodeData.txt", "0000;<control>;Cc;0;BN;;;;;N;NULL;;;;\n0001"),
            FileFormat::Unicode
        );
        assert_eq!(settle("a.txt", "0000;k\tv"), FileFormat::Tsv);
        assert_eq!(Format::Auto.settle(None, b""), FileFormat::Tsv);
    }
}
