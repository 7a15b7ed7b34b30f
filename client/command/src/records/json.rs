//! Keys and values in JSON: a line's object, and the fields of one.

use super::FileRecord;
use crate::text::{Encoding, base64};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};
use std::fmt;

const NAMES: [&str; 4] = ["key", "key_base64", "value", "value_base64"];

/// The members of a line's object that count, each as it is written: a number keeps its digits, an object the order
/// and the repetitions of its members.
#[derive(Default)]
struct Members<'a> {
    /// One for each of [`NAMES`].
    found: [Option<&'a RawValue>; NAMES.len()],
    /// A name that is there more than once, of which none can be meant alone.
    repeated: Option<&'static str>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(ReadMembers)
    }
}

struct ReadMembers;

impl<'de> Visitor<'de> for ReadMembers {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"key\" and \"value\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<String>()? {
            let known = NAMES.into_iter().zip(&mut members.found).find(|(known, _)| *known == name);
            let Some((known, place)) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.replace(map.next_value()?).is_some() {
                members.repeated = Some(known);
            }
        }
        Ok(members)
    }
}

/// Reads a line's object.
pub(super) fn parse(line: &[u8], key: Encoding, value: Encoding) -> Result<FileRecord, String> {
    let members: Members<'_> =
        serde_json::from_slice(line).map_err(|problem| format!("not a JSON object: {problem}"))?;
    if let Some(name) = members.repeated {
        return Err(format!("it has {name:?} more than once"));
    }
    let [key_text, key_base64, value_text, value_base64] = members.found;
    Ok(FileRecord {
        key: field("key", key_text, key_base64, key)?,
        value: field("value", value_text, value_base64, value)?,
    })
}

fn field(
    name: &str,
    text: Option<&RawValue>,
    as_base64: Option<&RawValue>,
    encoding: Encoding,
) -> Result<Bytes, String> {
    match (text, as_base64) {
        (Some(_), Some(_)) => Err(format!("it has \"{name}\" and \"{name}_base64\"; one of them is enough")),
        (None, None) => Err(format!("it has no \"{name}\"")),
        (Some(raw), None) => match string(raw) {
            Some(text) => text
                .and_then(|text| encoding.decode(text.as_bytes()))
                .map_err(|problem| format!("\"{name}\": {problem}")),
            // A document within the document is kept as its text.
            None if name == "value" => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
            None => Err(format!("\"{name}\" is not a string")),
        },
        (None, Some(raw)) => match string(raw) {
            Some(text) => text
                .and_then(|text| Encoding::Base64.decode(text.as_bytes()))
                .map_err(|problem| format!("\"{name}_base64\": {problem}")),
            None => Err(format!("\"{name}_base64\" is not a string")),
        },
    }
}

/// What a JSON string says; none, where it is no string.
fn string(raw: &RawValue) -> Option<Result<String, String>> {
    let text = raw.get();
    text.starts_with('"').then(|| serde_json::from_str(text).map_err(|problem| problem.to_string()))
}

/// A field of a JSON object for bytes: under `name`, or `name_base64` where they are not UTF-8.
pub(super) fn put_field(object: &mut Map<String, Value>, name: &str, encoding: Encoding, bytes: &[u8]) {
    match encoding.encode_json(bytes) {
        Some(text) => object.insert(name.to_owned(), text.into()),
        None => object.insert(format!("{name}_base64"), base64(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<(String, String), String> {
        let record = parse(line.as_bytes(), Encoding::Text, Encoding::Text)?;
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        Ok((text(record.key), text(record.value)))
    }

    #[test]
    fn a_line_has_a_key_and_a_value_of_any_kind() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(read(r#"{"key":"k","value":"a\tb"}"#), pair("k", "a\tb"));
        assert_eq!(
            read(r#" { "value" : "v" , "other" : [1, {}] , "k\u0065y" : "\u00fc" } "#),
            pair("ü", "v")
        );
        assert_eq!(read(r#"{"key_base64":"aw==","value":"v"}"#), pair("k", "v"));
        assert_eq!(read(r#"{"key":"k","value_base64":"dg=="}"#), pair("k", "v"));
        assert!(read(r#"{"key":1,"value":"v"}"#).unwrap_err().contains("not a string"));
        assert!(read(r#"{"key_base64":null,"value":"v"}"#).unwrap_err().contains("not a string"));
        assert!(read(r#"{"key":"k"}"#).unwrap_err().contains("no \"value\""));
        assert!(read(r#"{"key":"k","key_base64":"aw==","value":1}"#).unwrap_err().contains("one of them"));
        for wrong in ["k\tv", "[]", "{}x", r#"{"key":"k","value":{]}"#, r#"{"key":"k","value":01}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("[1]").unwrap_err().contains("not a JSON object"));
        assert!(parse(b"{\"key\":\"k\",\"value\":[\"\xff\"]}", Encoding::Text, Encoding::Text).is_err());
    }

    #[test]
    fn a_value_that_is_no_string_is_kept_as_it_is_written() {
        for value in [
            "18446744073709551616",
            "-0",
            "12.50",
            "1e400",
            "0.1000000000000000055511151231257827",
            "null",
            "true",
            r#"{"b":1,"a":2,"b":3}"#,
            r#"{ "b" : [ 1.0 , 2 ] }"#,
            r#"["\u00fc","\/",{}]"#,
        ] {
            let line = format!(r#"{{"key":"k","value": {value} ,"n":1}}"#);
            assert_eq!(read(&line).unwrap().1, value);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&format!(r#"{{"key":"k","value":{deep}}}"#)).unwrap().1, deep);
    }

    #[test]
    fn a_key_or_a_value_that_is_there_twice_is_told_instead_of_one_being_dropped() {
        for line in [r#"{"key":"a","key":"b","value":1}"#, r#"{"key":"a","value":1,"value":1}"#] {
            assert!(read(line).unwrap_err().contains("more than once"), "{line}");
        }
    }
}
