//! Times, sizes and switches as people write them.

use god_proto::time::parse_time;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, time::Duration};

/// A time: `100ms`, `2s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

const DAY: u64 = 86_400;

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        parse_time(text).map(Span).map_err(|why| format!("{text:?}: {why}"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not in months and years, which are no whole number of days.
        match (self.0.as_secs() / DAY, self.0.as_nanos().is_multiple_of(u128::from(DAY) * 1_000_000_000)) {
            (days @ 2.., true) => write!(f, "{days}days"),
            _ => humantime::format_duration(self.0).fmt(f),
        }
    }
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size in bytes: `256MiB`, `1 GiB`, `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong =
            || format!("{text:?} is no size; write a number and B, KiB, MiB, GiB or TiB, such as 256MiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let scale = match unit {
            "" => 1,
            // Not KB or M: whether that is 1,000 or 1,024 each is anyone's guess.
            _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(scale).map(ByteSize).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        let (name, scale) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Switch, String> {
        match text {
            "on" | "true" => Ok(Switch(true)),
            "off" | "false" => Ok(Switch(false)),
            _ => Err(format!("{text:?} is neither on nor off")),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

/// Reads any scalar of the file as if it had been typed on the command line, so that both say the same about it.
macro_rules! as_typed {
    ($($name:ident: $expecting:literal),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Typed;
                impl de::Visitor<'_> for Typed {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_bool<E: de::Error>(self, is: bool) -> Result<$name, E> {
                        self.visit_str(&is.to_string())
                    }
                }
                deserializer.deserialize_any(Typed)
            }
        }
    )*};
}

as_typed!(
    Span: "a time such as 500ms or 2s",
    ByteSize: "a size such as 256MiB",
    Switch: "on or off"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_printed_in_powers_of_1024() {
        for (text, bytes, printed) in [
            ("256MiB", 256 << 20, "256MiB"),
            ("1 GiB", 1 << 30, "1GiB"),
            ("1048576", 1 << 20, "1MiB"),
            ("1500B", 1_500, "1500B"),
            ("0", 0, "0B"),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_is_one() {
        for wrong in ["", "MiB", "1.5GiB", "10MB", "10M", "-1", "99999999999TiB", "1 2"] {
            let refusal = wrong.parse::<ByteSize>().unwrap_err();
            assert!(refusal.contains("such as 256MiB"), "{wrong}: {refusal}");
        }
    }

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!("1m 30s".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!(Span(Duration::from_millis(100)).to_string(), "100ms");
        for days in ["1day", "2days", "31days", "365days"] {
            assert_eq!(days.parse::<Span>().unwrap().to_string(), days);
        }
        assert_eq!(Span(Duration::from_secs(DAY * 2 + 1)).to_string(), "2days 1s");
        assert!("5".parse::<Span>().unwrap_err().contains("such as 500ms"));
        assert!("1M".parse::<Span>().unwrap_err().contains("1month"));
    }

    #[test]
    fn a_switch_is_on_or_off() {
        assert_eq!("off".parse(), Ok(Switch(false)));
        assert!("maybe".parse::<Switch>().unwrap_err().contains("neither on nor off"));
    }
}
