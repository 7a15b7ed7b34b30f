//! The ring as this node knows it, and the pure rules by which it changes.
//!
//! [`god_proto::ring::Ring`] is the validated document; it is shared with clients. The rules are functions from a
//! document to the next one: [`found`], [`join`], [`create_keyspace`], [`mark_live`].

mod allocate;
mod change;
mod current;
mod cut;
mod deal;
mod figures;
mod planner;
mod quota;
#[cfg(test)]
mod tests;
mod voters;

pub use allocate::allocate;
pub use change::{
    ChangeError, Founding, Joiner, choose_voters, create_keyspace, found, join, mark_live, shares,
    under_replicated,
};
pub use current::CurrentRing;
pub use figures::{NodeShare, shares, under_replicated};
pub use planner::{
    FoundOptions, Joiner, RingChangeError, create_keyspace, found, join, kept_back, mark_live,
};
pub use voters::choose_voters;
