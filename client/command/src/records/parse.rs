//! A line's key and value.

use super::{FileRecord, json};
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
    /// Resolves `auto` by a file's name and its first line.
    pub fn resolve(self, name: Option<&Path>, line: &[u8]) -> FileFormat {
        match self {
            Format::Tsv => return FileFormat::Tsv,
            Format::Jsonl => return FileFormat::Jsonl,
            Format::Unicode => return FileFormat::Unicode,
            Format::Auto => {}
        }
        if let Some(format) = name.and_then(FileFormat::of_name) {
            return format;
        }
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
    /// Why a line can be none of a text file; `None`: it may be one, or lines need not be text.
    pub fn no_text(self, line: &[u8]) -> Option<&'static str> {
        let text = match self.format {
            FileFormat::Tsv => !self.raw && (self.key == Encoding::Text || self.value == Encoding::Text),
            FileFormat::Jsonl | FileFormat::Unicode => true,
        };
        if !text {
            return None;
        }
        // Its mark, or Latin letters with a byte of zeros before or after each.
        if matches!(
            line,
            [0xff, 0xfe, ..]
                | [0xfe, 0xff, ..]
                | [1..=0xff, 0, 1..=0xff, 0, ..]
                | [0, 1..=0xff, 0, 1..=0xff, ..]
        ) {
            return Some("is UTF-16, not UTF-8 (convert the file: iconv -f UTF-16 -t UTF-8)");
        }
        if std::str::from_utf8(line).is_ok() {
            return None;
        }
        Some(match self.format {
            FileFormat::Tsv => {
                "is not UTF-8 (convert the file with iconv, or take its bytes as they are with --raw)"
            }
            FileFormat::Jsonl | FileFormat::Unicode => "is not UTF-8 (convert the file with iconv)",
        })
    }

    /// Reads a line. `None`: it is blank.
    pub fn parse(self, line: &[u8]) -> Result<Option<FileRecord>, String> {
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

    fn tsv(self, line: &[u8]) -> Result<FileRecord, String> {
        let tab = line.iter().position(|byte| *byte == b'\t');
        let (key, value) = tab
            .and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
            .ok_or_else(|| format!("no tab between key and value in {:?}", shown(line)))?;
        let field = |encoding: Encoding, text| {
            if self.raw { encoding.decode(text) } else { encoding.decode_field(text) }
        };
        let key = field(self.key, key).map_err(|problem| format!("the key: {problem}"))?;
        let value = field(self.value, value).map_err(|problem| format!("the value: {problem}"))?;
        Ok(FileRecord { key, value })
    }
}

/// A character's name is not its own alone (`<control>` has 65 of them): the code point makes it so.
fn unicode(line: &[u8]) -> Result<FileRecord, String> {
    let mut fields = line.split(|byte| *byte == b';');
    let (Some(code), Some(name)) = (fields.next(), fields.next()) else {
        return Err(format!("no CODE;NAME;… in {:?}", shown(line)));
    };
    if code.is_empty() || name.is_empty() || !code.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("no CODE;NAME;… in {:?}", shown(line)));
    }
    let key = [name, b" U+", code].concat();
    Ok(FileRecord { key: key.into(), value: Bytes::copy_from_slice(line) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]
    use super::*;

    fn syntax(format: FileFormat) -> Syntax {
        Syntax { format, key: Encoding::Text, value: Encoding::Text, raw: false }
    }

    fn pair(key: &str, value: &str) -> Option<FileRecord> {
        Some(FileRecord { key: key.to_owned().into(), value: value.to_owned().into() })
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
    fn a_line_that_is_not_utf_8_is_none_of_a_text_file() {
        let tsv = syntax(FileFormat::Tsv);
        let utf_16: Vec<u8> = "k\tv".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for line in [&b"\xff\xfek\0"[..], b"\xfe\xff\0k", b"k\0\t\0v\0", &utf_16] {
            assert!(tsv.no_text(line).unwrap().contains("UTF-16"), "{line:?}");
        }
        assert!(tsv.no_text(b"k\tGr\xfc\xdfe").unwrap().contains("--raw"));
        assert!(syntax(FileFormat::Unicode).no_text(b"\xfc").is_some());
        assert_eq!(tsv.no_text("k\tGrüße".as_bytes()), None);
        assert_eq!(tsv.no_text(b""), None);
        assert_eq!(Syntax { raw: true, ..tsv }.no_text(b"k\t\xff"), None);
        assert_eq!(Syntax { key: Encoding::Hex, value: Encoding::Hex, ..tsv }.no_text(b"\xff"), None);
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
        let resolve = |name: &str, line: &str| Format::Auto.resolve(Some(Path::new(name)), line.as_bytes());
        assert_eq!(resolve("a.tsv", "{"), FileFormat::Tsv);
        assert_eq!(resolve("a.NDJSON", "k\tv"), FileFormat::Jsonl);
        assert_eq!(resolve("a.txt", "{\"key\": 1}"), FileFormat::Jsonl);
        assert_eq!(resolve("UnicodeData.txt", "0000;<control>;Cc;0;BN;;;;;N;NULL;;;;"), FileFormat::Unicode);
        assert_eq!(resolve("a.txt", "0000;k\tv"), FileFormat::Tsv);
        assert_eq!(Format::Auto.resolve(None, b""), FileFormat::Tsv);
    }
}
