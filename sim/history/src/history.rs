//! What clients did and saw: the evidence that checkers judge.

use god_proto::version::Version;
use std::fmt;

/// A value that a client wrote. Distinct for each write of a key, so that a reader can tell whose it is.
pub type Token = u64;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Write this value.
    Put(Token),
    /// Write this value, for so many milliseconds.
    Lend(Token, u64),
    /// Delete.
    Delete(Token),
    /// Read.
    Get,
}

impl Ask {
    /// The value that it writes.
    pub fn value(&self) -> Option<Token> {
        match self {
            Ask::Put(token) | Ask::Lend(token, _) => Some(*token),
            Ask::Delete(_) | Ask::Get => None,
        }
    }
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The write is committed under this version.
    Committed(Version),
    /// Nothing was written and nothing will be; or a read failed.
    Rejected,
    /// It may have been written, or may yet be.
    Unknown,
    /// The read found this value.
    Found(Token, Version),
    /// The read found nothing, or a deletion of this version.
    Missing(Option<Version>),
}

/// One operation, from its call to its answer. Times are of one clock that all clients share.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Who asked.
    pub client: u32,
    /// About which key.
    pub key: u32,
    /// What was asked.
    pub ask: Ask,
    /// When it was asked, in microseconds.
    pub called: u64,
    /// When the answer came.
    pub answered: u64,
    /// The answer.
    pub told: Told,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.called as f64 / 1e6, self.answered as f64 / 1e6);
        write!(f, "{from:10.6} – {to:10.6}  client {:2}  key {:3}  ", self.client, self.key)?;
        match self.ask {
            Ask::Put(token) => write!(f, "put {token}")?,
            Ask::Lend(token, ms) => write!(f, "put {token} for {ms} ms")?,
            Ask::Delete(token) => write!(f, "delete #{token}")?,
            Ask::Get => write!(f, "get")?,
        }
        match self.told {
            Told::Committed(version) => write!(f, " → committed {version}"),
            Told::Rejected => write!(f, " → rejected"),
            Told::Unknown => write!(f, " → unknown"),
            Told::Found(token, version) => write!(f, " → {token} of {version}"),
            Told::Missing(Some(version)) => write!(f, " → deleted at {version}"),
            Told::Missing(None) => write!(f, " → nothing"),
        }
    }
}

/// What a listing or a count of a whole keyspace showed.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Who asked.
    pub client: u32,
    /// When it was asked, in microseconds.
    pub called: u64,
    /// When the last answer came.
    pub answered: u64,
    /// The keys in the order given, or their number alone.
    pub keys: Result<Vec<u32>, u64>,
}
