//! Which keys: the bounds that `scan`, `count` and `export` take.

use crate::{failure::Failure, input, text::Encoding};
use clap::Args;
use god_proto::v1::{KeyRange, key_range};
use std::ffi::OsString;

/// Bounds of a range; none: all keys.
#[derive(Args, Clone, Debug, Default)]
pub struct RangeArgs {
    /// From this key up
    #[arg(long, value_name = "KEY", conflicts_with = "after")]
    from: Option<OsString>,
    /// Above this key
    #[arg(long, value_name = "KEY")]
    after: Option<OsString>,
    /// Below this key
    #[arg(long, value_name = "KEY", conflicts_with = "through")]
    before: Option<OsString>,
    /// Up to and with this key
    #[arg(long, value_name = "KEY")]
    through: Option<OsString>,
    /// Only keys that begin so (ordered keyspaces)
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,
}

impl RangeArgs {
    /// The range in the protocol's terms.
    pub fn range(&self, encoding: Encoding) -> Result<KeyRange, Failure> {
        let bound =
            |typed: &Option<OsString>| typed.as_deref().map(|key| input::bound(key, encoding)).transpose();
        let lower = match (bound(&self.from)?, bound(&self.after)?) {
            (Some(key), _) => Some(key_range::Lower::From(key)),
            (None, Some(key)) => Some(key_range::Lower::After(key)),
            (None, None) => None,
        };
        let upper = match (bound(&self.before)?, bound(&self.through)?) {
            (Some(key), _) => Some(key_range::Upper::Before(key)),
            (None, Some(key)) => Some(key_range::Upper::Through(key)),
            (None, None) => None,
        };
        Ok(KeyRange { lower, upper, prefix: bound(&self.prefix)? })
    }
}
