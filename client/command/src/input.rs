//! Keys and values from the command line, or from stdin where `-` stands for them.

use crate::{failure::Failure, text::Encoding};
use bytes::Bytes;
use god_proto::{MAX_KEY, MAX_VALUE};
use std::{
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
};

/// Bytes of text for each byte that it stands for, at most: hexadecimal with a line's end after every byte.
const TEXT: usize = 4;

/// A key: as typed, or from stdin without the line's end.
pub fn key(typed: &OsStr, encoding: Encoding) -> Result<Bytes, Failure> {
    let bytes = if typed == "-" {
        let read = from_stdin(TEXT * MAX_KEY + 2, "key")?;
        encoding.decode(without_line_end(&read))
    } else {
        encoding.decode(typed.as_bytes())
    };
    let key = bytes.map_err(|problem| Failure::Usage(format!("the key {problem} (see --key-format)")))?;
    match key.len() {
        0 => Err(Failure::Usage("the key is empty; a key has at least one byte".to_owned())),
        len if len > MAX_KEY => {
            Err(Failure::Usage(format!("the key has {len} bytes; the most is {MAX_KEY}")))
        }
        _ => Ok(key),
    }
}

/// A value: as typed, or all of stdin. Text from stdin is taken whole, line ends and all.
pub fn value(typed: &OsStr, encoding: Encoding) -> Result<Bytes, Failure> {
    let bytes = if typed == "-" {
        let read = from_stdin(TEXT * MAX_VALUE + 2, "value")?;
        match encoding {
            Encoding::Text => Ok(Bytes::from(read)),
            Encoding::Hex | Encoding::Base64 => encoding.decode(&read),
        }
    } else {
        encoding.decode(typed.as_bytes())
    };
    let value =
        bytes.map_err(|problem| Failure::Usage(format!("the value {problem} (see --value-format)")))?;
    if value.len() > MAX_VALUE {
        return Err(Failure::Usage(format!("the value has {} bytes; the most is {MAX_VALUE}", value.len())));
    }
    Ok(value)
}

/// A bound or a prefix: as typed.
pub fn bound(typed: &OsStr, encoding: Encoding) -> Result<Bytes, Failure> {
    let bytes = encoding.decode(typed.as_bytes());
    bytes.map_err(|problem| Failure::Usage(format!("the key {problem} (see --key-format)")))
}

fn from_stdin(most: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    io::stdin()
        .lock()
        .take(most as u64 + 1)
        .read_to_end(&mut read)
        .map_err(|error| Failure::Usage(format!("cannot read the {what} from stdin: {error}")))?;
    if read.len() > most {
        return Err(Failure::Usage(format!("the {what} on stdin has more than {most} bytes")));
    }
    Ok(read)
}

fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_refused_before_it_is_sent_when_it_can_be_none() {
        let refusal = |text: &str, encoding| key(OsStr::new(text), encoding).unwrap_err().to_string();
        assert!(refusal("", Encoding::Text).contains("empty"));
        assert!(refusal(&"k".repeat(MAX_KEY + 1), Encoding::Text).contains("the most is 4096"));
        assert!(refusal("xyz", Encoding::Hex).contains("--key-format"));
    }

    #[test]
    fn a_line_end_is_no_part_of_a_key_from_stdin() {
        assert_eq!(without_line_end(b"k\r\n"), b"k");
        assert_eq!(without_line_end(b"k\n\n"), b"k\n");
    }
}
