//! Keys and values as text: on the command line, in files, in answers. Any bytes survive the way out and back.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::ValueEnum;
use std::fmt::Write as _;

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    // As they are; in lines of a file or an answer, what would break a line is written as an escape.
    #[default]
    Text,
    // Two hexadecimal digits a byte.
    Hex,
    // With padding.
    Base64,
}

impl Encoding {
    /// Reads bytes that stand alone: a command line's argument, a JSON string, or all of stdin. Text has no escapes
    /// there. In hexadecimal and base64 white space means nothing: `base64` and `xxd -p` cut what they write into
    /// lines.
    pub fn decode(self, text: &[u8]) -> Result<Bytes, String> {
        match self {
            Encoding::Text => Ok(Bytes::copy_from_slice(text)),
            Encoding::Hex => unwrapped(text, "hexadecimal", |text| hex::decode(text).ok()),
            Encoding::Base64 => unwrapped(text, "base64", |text| STANDARD.decode(text).ok()),
        }
    }

    /// Reads a field of a line: as [`Encoding::decode`], with text's escapes undone.
    pub fn decode_field(self, field: &[u8]) -> Result<Bytes, String> {
        match self {
            Encoding::Text => unescape(field).map(Bytes::from),
            Encoding::Hex | Encoding::Base64 => self.decode(field),
        }
    }

    /// Writes a field of a line: never holds a tab, a line's end or a control character.
    pub fn encode_field(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Text => escape(bytes),
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
        }
    }

    /// Writes bytes for JSON. `None`: as text they have none, since they are not UTF-8.
    pub fn encode_json(self, bytes: &[u8]) -> Option<String> {
        match self {
            Encoding::Text => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Encoding::Hex | Encoding::Base64 => Some(self.encode_field(bytes)),
        }
    }
}

/// Decodes as it stands, which is the most frequent, else without its white space.
fn unwrapped(text: &[u8], name: &str, decode: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<Bytes, String> {
    let bytes = decode(text).or_else(|| {
        let bare: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        decode(&bare)
    });
    bytes.map(Bytes::from).ok_or_else(|| format!("{:?} is not {name}", shown(text)))
}

/// Base64, for bytes that JSON has no string for.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Text with everything that would break a line, or a terminal, written as an escape.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                // At the beginning of a file it would be taken for a byte order mark.
                c if c.is_control() || c == '\u{feff}' => {
                    escape_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out)
                }
                c => out.push(c),
            }
        }
        escape_bytes(chunk.invalid(), &mut out);
    }
    out
}

fn escape_bytes(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// The inverse of [`escape`].
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (plain, after) = match rest {
            [b'\\', after @ ..] => (b'\\', after),
            [b't', after @ ..] => (b'\t', after),
            [b'n', after @ ..] => (b'\n', after),
            [b'r', after @ ..] => (b'\r', after),
            [b'x', high, low, after @ ..] => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte)
                    .map_err(|_| format!("\\x{}{} is no escape", *high as char, *low as char))?;
                (byte[0], after)
            }
            [other, ..] => {
                return Err(format!(
                    "\\{} is no escape (known: \\\\ \\t \\n \\r \\xNN); take lines as they are with --raw",
                    other.escape_ascii()
                ));
            }
            [] => {
                return Err(
                    "a backslash ends it; write \\\\, or take lines as they are with --raw".to_owned()
                );
            }
        };
        out.push(plain);
        rest = after;
    }
    Ok(out)
}

/// Bytes as a person may read them in a message: escaped, and cut when long.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    match bytes.get(..MOST) {
        Some(head) if bytes.len() > MOST => format!("{}… ({} bytes)", escape(head), bytes.len()),
        _ => escape(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_being_written_as_a_field(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for encoding in [Encoding::Text, Encoding::Hex, Encoding::Base64] {
                let field = encoding.encode_field(&bytes);
                prop_assert!(!field.chars().any(char::is_control));
                prop_assert_eq!(&encoding.decode_field(field.as_bytes()).unwrap()[..], &bytes[..]);
            }
        }

        #[test]
        fn any_text_survives_being_written_as_a_field(text in "\\PC{0,20}[\\\\\t\n\r\u{80}]{0,4}") {
            prop_assert_eq!(unescape(escape(text.as_bytes()).as_bytes()).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn readable_text_stays_readable() {
        assert_eq!(escape("Grüße 🎉 = ok".as_bytes()), "Grüße 🎉 = ok");
        assert_eq!(escape(b"a\tb\\\x00\xff"), "a\\tb\\\\\\x00\\xff");
        assert_eq!(escape("\u{feff}a".as_bytes()), "\\xef\\xbb\\xbfa");
    }

    #[test]
    fn an_escape_that_is_none_is_refused_with_the_ones_there_are() {
        assert!(unescape(br"\d+").unwrap_err().contains("known: "));
        assert!(unescape(br"\xZZ").unwrap_err().contains("no escape"));
        assert!(unescape(br"\x1").unwrap_err().contains("no escape"));
        assert!(unescape(br"end\").unwrap_err().contains("--raw"));
    }

    #[test]
    fn white_space_in_hex_and_base64_means_nothing() {
        for wrapped in ["00ff0a", "00ff\n0a\n", "00\r\nff\r\n0a", " 0 0 f\tf0a "] {
            assert_eq!(Encoding::Hex.decode(wrapped.as_bytes()).unwrap()[..], [0, 0xff, 0x0a], "{wrapped:?}");
        }
        for wrapped in ["AP8K", "AP\n8K\n", "A P\r\n8K"] {
            assert_eq!(
                Encoding::Base64.decode(wrapped.as_bytes()).unwrap()[..],
                [0, 0xff, 0x0a],
                "{wrapped:?}"
            );
        }
        assert_eq!(Encoding::Text.decode(b"a b\n").unwrap()[..], *b"a b\n");
    }

    #[test]
    fn wrong_hex_and_base64_are_refused() {
        assert!(Encoding::Hex.decode(b"abc").is_err());
        assert!(Encoding::Base64.decode(b"?").is_err());
    }
}
