//! The rules by which rings change.
//!
//! [`god_proto::ring::Ring`] is the validated document; it is shared with clients.

mod allocate;
mod change;
mod planner;
mod recover;
mod terms;
mod transition;
#[cfg(test)]
mod transition_tests;

pub use allocate::allocate;
pub use change::{
    ChangeError, Founding, Joiner, choose_voters, create_keyspace, found, join, mark_live, replace_voter,
    shares, under_replicated,
};
pub use planner::{
    ArcSize, Move, Plan, Refused, Share, Sizes, Split, Wish, plan, shares as planned_shares, small_arcs,
};
pub use recover::{Recovery, recover};
pub use transition::{
    Evidence, begin, cancel, current, lost, lost_by, merge, nodes_of, rebalance, refuse, retires,
    sources_needed, split, start, step,
};
