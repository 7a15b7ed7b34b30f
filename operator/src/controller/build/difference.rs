//! Whether an object is as it should be, though the API server filled in more and wrote quantities its own way.

use crate::crd::bytes_of;
use serde_json::Value;

/// Whether anything that is wished for is not so. What is there beyond the wish does not matter.
pub fn differs(wished: &Value, found: &Value) -> bool {
    match (wished, found) {
        (Value::Object(wished), Value::Object(found)) => wished.iter().any(|(name, value)| {
            found.get(name).map_or_else(|| !is_nothing(value), |found| differs(value, found))
        }),
        (Value::Array(wished), Value::Array(found)) => {
            wished.len() != found.len()
                || wished.iter().zip(found).any(|(wished, found)| differs(wished, found))
        }
        (Value::String(wished), Value::String(found)) => wished != found && !same_quantity(wished, found),
        (Value::Number(wished), Value::String(found)) => !same_quantity(&wished.to_string(), found),
        (Value::Number(wished), Value::Number(found)) => wished.as_f64() != found.as_f64(),
        (wished, found) => wished != found,
    }
}

/// The API server leaves out what is empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(_) => false,
    }
}

fn same_quantity(a: &str, b: &str) -> bool {
    // Thousandths of a processor are told apart only when scaled up.
    let exact = |text: &str| match text.strip_suffix('m') {
        Some(number) => number.parse::<u64>().ok(),
        None => text
            .parse::<f64>()
            .map(|it| (it * 1_000.0).round() as u64)
            .ok()
            .or_else(|| bytes_of(text)?.checked_mul(1_000)),
    };
    exact(a).is_some_and(|value| exact(b) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_api_server_fills_in_is_no_difference() {
        let wished = json!({ "a": 1, "list": [{ "x": "0.5" }], "empty": {}, "size": "1024Mi", "off": false });
        let found = json!({ "a": 1, "list": [{ "x": "500m", "more": true }], "size": "1Gi", "other": 3 });
        assert!(!differs(&wished, &found));
    }

    #[test]
    fn what_somebody_changed_is_a_difference() {
        let wished = json!({ "a": 1, "list": [{ "x": "500m" }], "name": "b" });
        for found in [
            json!({ "a": 2, "list": [{ "x": "500m" }], "name": "b" }),
            json!({ "a": 1, "list": [], "name": "b" }),
            json!({ "a": 1, "list": [{ "x": "501m" }], "name": "b" }),
            json!({ "a": 1, "list": [{ "x": "500m" }] }),
            json!({ "a": 1, "list": [{ "x": "500m" }], "name": "c" }),
        ] {
            assert!(differs(&wished, &found), "{found}");
        }
    }
}
