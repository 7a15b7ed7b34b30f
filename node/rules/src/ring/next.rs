//! What all changes of a ring share: why one is refused, and the document of the next epoch.

use god_proto::{
    ring::{Ring, RingError, ring_bytes},
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
    /// Nodes have not heard of what it follows; later they may have.
    #[error("{0}")]
    Unheard(String),
    /// The document has no room for it; later it may have.
    #[error(
        "the ring would have {bytes} bytes, and this is done up to {bound}: delete keyspaces, or make new ones with \
         fewer or shorter splits"
    )]
    Full {
        /// It would have so many.
        bytes: usize,
        /// The most for this kind of change.
        bound: usize,
    },
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
            ChangeError::TooFew(_) | ChangeError::Unheard(_) | ChangeError::Full { .. } => {
                Reason::Unavailable
            }
            _ => Reason::Invalid,
        }
    }
}

/// The document of the next epoch, to be changed.
pub fn next(ring: &Ring) -> RingDocument {
    let mut document = ring.document().clone();
    document.epoch += 1;
    document
}

/// A ring of at most so many bytes, which leaves room in its document for what must come after (RING-CARRIED).
pub(super) fn at_most(bound: usize, document: RingDocument) -> Result<Ring, ChangeError> {
    let bytes = ring_bytes(&document);
    if bytes > bound {
        return Err(ChangeError::Full { bytes, bound });
    }
    Ok(Ring::new(document)?)
}
