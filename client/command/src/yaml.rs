//! YAML that every reader takes for what was meant, those of YAML 1.1 too.

use god_manual::yaml::{number, quoted};
use serde_json::{Map, Value};

/// A document, without the end of its last line.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        Value::Object(members) if !members.is_empty() => mapping(members, 0, &mut out),
        other => scalar(other, &mut out),
    }
    out
}

/// Items, a line each or more; the first one where the text stands.
fn sequence(items: &[Value], depth: usize, out: &mut String) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            new_line(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Array(items) if !items.is_empty() => sequence(items, depth + 1, out),
            Value::Object(members) if !members.is_empty() => mapping(members, depth + 1, out),
            other => scalar(other, out),
        }
    }
}

fn mapping(members: &Map<String, Value>, depth: usize, out: &mut String) {
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            new_line(depth, out);
        }
        string(name, out);
        out.push(':');
        match value {
            Value::Array(items) if !items.is_empty() => {
                new_line(depth, out);
                sequence(items, depth, out);
            }
            Value::Object(members) if !members.is_empty() => {
                new_line(depth + 1, out);
                mapping(members, depth + 1, out);
            }
            other => {
                out.push(' ');
                scalar(other, out);
            }
        }
    }
}

fn new_line(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(value) => out.push_str(&number(&value.to_string())),
        Value::String(value) => string(value, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn string(text: &str, out: &mut String) {
    out.push_str(&quoted(text));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    #[test]
    fn documents_look_as_one_would_write_them() {
        let value = json!({
            "empty": [], "epoch": 1, "name": "god", "nodes": [{"number": 1, "to": {"a": [1, [2, 3], [{}]]}}, "x"],
            "none": null, "part": 0.5, "up": true,
        });
        let text = text(&value);
        let written = "empty: []\nepoch: 1\nname: god\nnodes:\n- number: 1\n  to:\n    a:\n    - 1\n    - - 2\n      - 3\n    \
                       - - {}\n- x\nnone: null\npart: 0.5\nup: true";
        assert_eq!(text, written);
    }

    #[test]
    fn text_that_a_reader_of_yaml_1_1_takes_for_something_else_is_in_quotes() {
        for delicate in [
            "",
            "no",
            "No",
            "NO",
            "yes",
            "y",
            "N",
            "on",
            "Off",
            "true",
            "FALSE",
            "null",
            "Null",
            "~",
            "12:30",
            "1:02:03",
            "1_000",
            "0x1f",
            "0o17",
            "017",
            "0b1",
            "1e3",
            "-1",
            "+1",
            ".5",
            ".inf",
            ".NaN",
            "=",
            "<<",
            "2024-01-02",
            "2024-01-02 03:04:05",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-",
            "---",
            "...",
            "? a",
            "*a",
            "&a",
            "!a",
            "@a",
            "`a",
            "%a",
            "|",
            ">",
            "[a]",
            "{a}",
            "a,b",
            "'a'",
            "\"a\"",
            " a",
            "a ",
            "a\nb",
            "\t",
            "\u{85}",
            "\u{2028}",
            "\u{feff}a",
            "127.0.0.1:7000",
            "7.0@1",
        ] {
            let value = Value::from(delicate);
            assert!(text(&value).starts_with('"'), "{delicate:?}");
            assert_eq!(serde_yaml::from_str::<Value>(&text(&value)).unwrap(), value);
            let member = json!({ delicate: delicate });
            assert!(text(&member).starts_with('"'), "{delicate:?}");
            assert_eq!(serde_yaml::from_str::<Value>(&text(&member)).unwrap(), member);
        }
        for plain in ["a", "god", "node 1 (up)", "/data", "europe-west3-a", "none", "nothing", "_x", "e3"] {
            assert_eq!(text(&Value::from(plain)), plain);
        }
    }

    #[test]
    fn a_number_is_one_to_every_reader() {
        for (value, written) in [
            (json!(1e21), "1.0e+21"),
            (json!(1.5e-9), "1.5e-9"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(-3), "-3"),
            (json!(0.25), "0.25"),
        ] {
            assert_eq!(text(&value), written);
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\u{80}-\u{100}\u{2028}\u{feff}\n\t\r]{0,6}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same_document(value in document()) {
            prop_assert_eq!(serde_yaml::from_str::<Value>(&text(&value)).unwrap(), value);
        }
    }
}
