//! What may come of a call besides success, told apart by what it means for the data.

use god_proto::{
    v1::{Reason, Rejected},
    version::Version,
};
use std::time::Duration;

/// Why a call did not do what was asked. What a program does next depends on the variant alone:
///
/// | variant | was anything written? | what to do |
/// |---|---|---|
/// | [`Error::Invalid`] | no | correct the call |
/// | [`Error::Refused`] | no | see the reason; the client has tried again where that made sense |
/// | [`Error::Unknown`] | perhaps, perhaps later | read, or write again if writing twice does no harm |
/// | [`Error::Unreachable`] | no | look after the network and the nodes |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The call, or a setting, is invalid. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// A node refused. Nothing was written, and nothing will be.
    #[error("refused: {message}")]
    Refused {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        message: String,
        /// When trying again makes sense, if it does.
        retry_after: Option<Duration>,
    },
    /// A write of which fewer replicas than asked are known to hold it: it may surface later. Never sent again by
    /// itself.
    #[error("outcome unknown; the write may surface later: {message}")]
    Unknown {
        /// Its version, if a node said so.
        version: Option<Version>,
        /// Replicas that hold it for sure.
        acks: u32,
        /// What happened.
        message: String,
    },
    /// Nobody answered. If it was a write, it was not sent.
    #[error("{0}")]
    Unreachable(String),
}

impl Error {
    /// The reason of a refusal.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// Whether a write may have taken effect, or may yet.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Error {
        let retry_after = match rejected.retry_after_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms.into())),
        };
        Error::Refused { reason: rejected.reason(), message: rejected.message, retry_after }
    }
}

/// What a stored value, or the lack of one, is answered with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The innermost cause of an error: the outermost of a transport says only that it is one.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
