//! Scalars in YAML that every reader takes for what was meant: those of YAML 1.1, which are the most, read `no` as
//! false, `12:30` as 750 and `1_000` as 1000 unless they are in quotes. Only what no version takes for anything but
//! text goes without.

use std::{borrow::Cow, fmt::Write as _};

/// Plain words that some reader takes for something else than text, whatever their case.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "true", "false", "on", "off", "null"];

/// Text as YAML has it: as it stands, or in double quotes.
pub fn quoted(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // What is no printable character, ends a line or marks a file is written by its number.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

/// A number: YAML 1.1 has no exponent without a point before it and a sign in it: `1e21` is text there.
pub fn number(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// Whether it is text to every reader as it stands: numbers and times begin with a digit, a sign or a point, all that
/// has a meaning to YAML with a mark.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    let inside =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '+' | ' ' | '(' | ')');
    let word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    begins && text.chars().all(inside) && !text.ends_with(' ') && !word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_reader_takes_for_anything_else_stands_without_quotes() {
        for plain in ["a", "data/x", "/var/lib/god", "info", "no-one", "a b", "_"] {
            assert_eq!(quoted(plain), plain);
        }
        for (text, yaml) in [
            ("no", "\"no\""),
            ("12:30", "\"12:30\""),
            ("1_000", "\"1_000\""),
            ("=", "\"=\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a\"\\\n", "\"a\\\"\\\\\\n\""),
            ("\u{feff}x\u{85}", "\"\\ufeffx\\u0085\""),
        ] {
            assert_eq!(quoted(text), yaml, "{text:?}");
        }
    }
}
