//! What all changes of a ring share: why one is refused, and the document of the next epoch.

use god_proto::{
    ring::{ROOMY_RING_BYTES, Ring, RingError, ring_bytes},
    v1::{Reason, RingDocument},
};
use uuid::Uuid;

/// The longest text that a member says of itself, in bytes.
pub(super) const MAX_TEXT: usize = 256;

/// Why a ring does not change as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The wish itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// There is no such keyspace.
    #[error("{0}")]
    NoKeyspace(String),
    /// There are too few nodes for it; later there may be enough.
    #[error("{0}")]
    TooFew(String),
    /// The node left for good.
    #[error(
        "node {0} was retired from this cluster; give it a new data directory, and it joins as a new node"
    )]
    Retired(Uuid),
    /// The result would break a rule: a defect of this program.
    #[error(transparent)]
    Broken(#[from] RingError),
}

impl ChangeError {
    /// What clients are told.
    pub fn reason(&self) -> Reason {
        match self {
            ChangeError::Exists(_) => Reason::Exists,
            ChangeError::NoKeyspace(_) => Reason::NoSuchKeyspace,
            ChangeError::TooFew(_) => Reason::Unavailable,
            _ => Reason::Invalid,
        }
    }
}

/// The document of the next epoch, to be changed.
pub(super) fn next(ring: &Ring) -> RingDocument {
    let mut document = ring.document().clone();
    document.epoch += 1;
    document
}

/// A ring that leaves room in its document for the steps of operations: what is asked for is refused beyond that.
pub(super) fn roomy(document: RingDocument) -> Result<Ring, ChangeError> {
    let bytes = ring_bytes(&document);
    if bytes > ROOMY_RING_BYTES {
        return Err(ChangeError::Invalid(format!(
            "the ring would have {bytes} bytes, and nothing is added to one of more than {ROOMY_RING_BYTES}: delete \
             keyspaces, or make this one with fewer or shorter splits"
        )));
    }
    Ok(Ring::new(document)?)
}
