//! Times as people write them, and times to live as they are stored: one rule for whoever takes either.

use std::time::Duration;

/// The longest time to live, in milliseconds: 1,000 years. With longer ones sums of them would not stay sums.
pub const MAX_TTL_MS: u64 = 1_000 * 366 * 86_400_000;
/// The longest time to live, and the longest time that is read from text.
pub const MAX_TTL: Duration = Duration::from_millis(MAX_TTL_MS);

/// Why a time is refused, with what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not a number and a unit.
    #[error("not a time; write a number and a unit, such as 500ms, 2s or 1m")]
    Unreadable,
    /// `M` beside `m`.
    #[error("M may be minutes or months; write 1m or 1month")]
    Month,
    /// Above [`MAX_TTL`].
    #[error("the longest time is 1,000 years ({MAX_TTL_MS} ms)")]
    TooLong,
    /// A time to live below a millisecond.
    #[error("a time to live is at least 1ms")]
    TooShort,
    /// A time to live that would be stored as another one.
    #[error("a time to live has whole milliseconds")]
    Parts,
}

/// Reads `500ms`, `2s`, `1m 30s` or `7days`: numbers with units, up to [`MAX_TTL`], 0 among them.
///
/// # Errors
/// [`TimeError::Unreadable`], [`TimeError::Month`], [`TimeError::TooLong`].
pub fn parse_time(text: &str) -> Result<Duration, TimeError> {
    // In the crate's grammar months, beside `m` for minutes: whoever shouts would wait 43,000 times as long.
    if text.split(|c: char| !c.is_alphabetic()).any(|unit| unit == "M") {
        return Err(TimeError::Month);
    }
    match humantime::parse_duration(text) {
        Ok(time) if time > MAX_TTL => Err(TimeError::TooLong),
        Ok(time) => Ok(time),
        Err(humantime::DurationError::NumberOverflow) => Err(TimeError::TooLong),
        Err(_) => Err(TimeError::Unreadable),
    }
}

/// Reads a time to live: as [`parse_time`], and one that [`ttl_ms`] takes.
///
/// # Errors
/// Those of both.
pub fn parse_ttl(text: &str) -> Result<Duration, TimeError> {
    let ttl = parse_time(text)?;
    ttl_ms(ttl).map(|_| ttl)
}

/// A time to live in the milliseconds that calls and keyspaces bear: 1 to [`MAX_TTL_MS`].
///
/// # Errors
/// [`TimeError::TooShort`], [`TimeError::Parts`] and [`TimeError::TooLong`]: none is cut to one that fits.
pub fn ttl_ms(ttl: Duration) -> Result<u64, TimeError> {
    if ttl > MAX_TTL {
        return Err(TimeError::TooLong);
    }
    if ttl < Duration::from_millis(1) {
        return Err(TimeError::TooShort);
    }
    match ttl.subsec_nanos().is_multiple_of(1_000_000) {
        true => Ok(ttl.as_millis() as u64),
        false => Err(TimeError::Parts),
    }
}

/// Whether a node takes a time to live, in milliseconds; 0 is none, or another's default.
///
/// # Errors
/// [`TimeError::TooLong`].
pub fn check_ttl_ms(ms: u64) -> Result<(), TimeError> {
    if ms > MAX_TTL_MS { Err(TimeError::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, ms) in
            [("1500ms", 1_500), ("2s", 2_000), ("1m 30s", 90_000), ("7days", 604_800_000), ("0s", 0)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", " ", "5", "-1s", "1.s", "s", "1 2", "1h1", "h1", "1é", "\u{feff}1s", "1s\0"] {
            assert_eq!(parse_time(wrong), Err(TimeError::Unreadable), "{wrong:?}");
        }
    }

    #[test]
    fn a_minute_is_no_month() {
        assert_eq!(parse_time("1m"), Ok(Duration::from_mins(1)));
        assert_eq!(parse_time("1month"), Ok(Duration::from_secs(2_630_016)));
        for wrong in ["1M", "1h 30M", "1M1s", "2 M"] {
            let refused = parse_time(wrong).unwrap_err();
            assert_eq!(refused, TimeError::Month, "{wrong}");
            assert!(refused.to_string().contains("1month"));
        }
    }

    #[test]
    fn a_time_that_is_longer_than_can_be_counted_is_too_long_and_not_short() {
        assert_eq!(parse_time("366000days"), Ok(MAX_TTL));
        for wrong in
            ["366000days 1ns", "1100years", "300000years", "18446744073709552s", "99999999999999999999s"]
        {
            assert_eq!(parse_time(wrong), Err(TimeError::TooLong), "{wrong}");
        }
        // No sum of now and the longest one overflows.
        assert!(std::time::Instant::now().checked_add(MAX_TTL).is_some());
    }

    #[test]
    fn a_time_to_live_is_stored_as_it_was_said_or_refused() {
        for (text, ms) in [("1ms", 1), ("1s 500ms", 1_500), ("1h", 3_600_000), ("366000days", MAX_TTL_MS)] {
            assert_eq!(parse_ttl(text).and_then(ttl_ms), Ok(ms), "{text}");
        }
        for (text, why) in [
            ("0s", TimeError::TooShort),
            ("500us", TimeError::TooShort),
            ("1500us", TimeError::Parts),
            ("1s 1ns", TimeError::Parts),
            ("366000days 1ms", TimeError::TooLong),
            ("18446744073709552s", TimeError::TooLong),
            ("1M", TimeError::Month),
            ("1", TimeError::Unreadable),
        ] {
            assert_eq!(parse_ttl(text), Err(why), "{text}");
        }
        assert_eq!(ttl_ms(Duration::MAX), Err(TimeError::TooLong));
        assert_eq!((check_ttl_ms(0), check_ttl_ms(MAX_TTL_MS)), (Ok(()), Ok(())));
        assert_eq!(check_ttl_ms(MAX_TTL_MS + 1), Err(TimeError::TooLong));
    }
}
