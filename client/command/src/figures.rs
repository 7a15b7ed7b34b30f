//! Numbers as a person reads them.

use god_proto::MAX_AHEAD_MS;

/// Microseconds beyond which a clock is worth a look.
pub const CLOCK_LOOK_US: u64 = MAX_AHEAD_MS * 200;
/// Microseconds beyond which its node is nearly at what is refused.
pub const CLOCK_BAD_US: u64 = MAX_AHEAD_MS * 800;

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// At most five characters: `999`, `34.9k`, `1.2M`.
pub fn short(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P"])
}

/// Bytes, in powers of 1,024: `512 B`, `1.5 MiB`.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut left = number;
    let mut unit = units.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    let mut whole = true;
    // What would be printed as 1000 belongs to the next unit already.
    while left >= step - 0.5 {
        let Some(next) = unit.next() else { break };
        left /= step;
        name = next;
        whole = false;
    }
    if whole || left >= 99.95 { format!("{left:.0}{name}") } else { format!("{left:.1}{name}") }
}

/// Microseconds, with a sign: `+40µs`, `-12ms`, `+1.5s`.
pub fn offset_us(us: i64) -> String {
    let size = us.unsigned_abs();
    let sign = if us < 0 { "-" } else { "+" };
    match size {
        0 => "0".to_owned(),
        1..1_000 => format!("{sign}{size}µs"),
        1_000..1_000_000 => format!("{sign}{}ms", (size + 500) / 1_000),
        _ => format!("{sign}{:.1}s", size as f64 / 1e6),
    }
}

/// `45s`, `12m`, `3h`, `5d`.
pub fn uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `1 node`, `3 nodes`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(short(999.0), "999");
        assert_eq!(short(999.7), "1.0k");
        assert_eq!(short(34_931.0), "34.9k");
        assert_eq!(short(250_000.0), "250k");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 19), "1.5 MiB");
        assert_eq!(counted(1, "node"), "1 node");
        assert_eq!(counted(1_000, "key"), "1,000 keys");
    }

    #[test]
    fn a_clock_offset_has_a_sign_and_a_unit_that_fits() {
        assert_eq!(offset_us(0), "0");
        assert_eq!(offset_us(-40), "-40µs");
        assert_eq!(offset_us(12_400), "+12ms");
        assert_eq!(offset_us(-2_000_000), "-2.0s");
    }
}
