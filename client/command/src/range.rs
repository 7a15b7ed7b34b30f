//! Which keys: the bounds that `scan`, `count` and `export` take.

use crate::{failure::Failure, input, text::Encoding};
use clap::Args;
use god_client::Range;
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
    /// The range in the client's terms.
    pub fn range(&self, encoding: Encoding) -> Result<Range, Failure> {
        let bound =
            |typed: &Option<OsString>| typed.as_deref().map(|key| input::bound(key, encoding)).transpose();
        let mut range = bound(&self.prefix)?.map_or_else(Range::all, Range::prefix);
        if let Some(key) = bound(&self.from)? {
            range = range.from_key(key);
        }
        if let Some(key) = bound(&self.after)? {
            range = range.after(key);
        }
        if let Some(key) = bound(&self.before)? {
            range = range.before(key);
        }
        if let Some(key) = bound(&self.through)? {
            range = range.through(key);
        }
        Ok(range)
    }
}
