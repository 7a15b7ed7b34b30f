//! The ring as this node knows it, and the pure rules by which it changes.
//!
//! [`god_proto::ring::Ring`] is the validated document; it is shared with clients.

mod allocate;
mod change;
mod current;

pub use allocate::allocate;
pub use change::{
    ChangeError, Founding, Joiner, choose_voters, create_keyspace, found, join, mark_live, shares,
    under_replicated,
};
pub use current::CurrentRing;
