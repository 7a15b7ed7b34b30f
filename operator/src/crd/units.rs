//! Durations and quantities, as they are written.

/// Seconds in a duration such as `90s`, `15m`, `1h` or `500ms` (rounded up). `None`: it is not one.
pub fn seconds(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text.get(..at)?.parse().ok()?;
    match text.get(at..)? {
        "ms" => Some(number.div_ceil(1_000)),
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        "d" => number.checked_mul(86_400),
        _ => None,
    }
}

/// Thousandths of a second in such a duration, with nothing rounded.
pub fn milliseconds(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok(),
        None => seconds(text)?.checked_mul(1_000),
    }
}

/// Bytes in a quantity such as `10Gi`, `500M` or `1e9`, rounded up. `None`: it is not one, or not of bytes.
pub fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => f64::from(1 << 10),
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        // Thousandths: where a sum of storage was computed by somebody.
        "m" => 1e-3,
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = (number * factor).ceil();
    (bytes.is_finite() && (0.0..=9.3e18).contains(&bytes)).then_some(bytes as u64)
}

/// Bytes for people, such as `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        let read = ["90s", "15m", "1h", "500ms", "2d", "", "5", "h", "-1s", "1w"].map(seconds);
        assert_eq!(
            read,
            [Some(90), Some(900), Some(3_600), Some(1), Some(172_800), None, None, None, None, None]
        );
    }

    #[test]
    fn what_is_shorter_than_a_second_stays_it_in_milliseconds() {
        let read = ["1500ms", "2s", "1m", "ms", "5", "99999999999999999h"].map(milliseconds);
        assert_eq!(read, [Some(1_500), Some(2_000), Some(60_000), None, None, None]);
    }

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        let read = ["1Ki", "1.5Gi", "1000", "1k", "1e3", "3E", "1x", "", "-1"].map(bytes_of);
        let expected = [
            Some(1024),
            Some(1_610_612_736),
            Some(1000),
            Some(1000),
            Some(1000),
            Some(3_000_000_000_000_000_000),
            None,
            None,
            None,
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!([10, 2048, 3 << 30].map(bytes), ["10 B", "2.0 KiB", "3.0 GiB"]);
    }
}
