//! The rules by which rings change.
//!
//! [`god_proto::ring::Ring`] is the validated document; it is shared with clients.

mod allocate;
mod carry;
mod change;
#[cfg(test)]
mod change_tests;
mod epochs;
#[cfg(test)]
mod epochs_tests;
mod keyspaces;
#[cfg(test)]
mod lost_tests;
mod names;
mod next;
mod parts;
mod planner;
mod recover;
mod terms;
#[cfg(test)]
mod terms_tests;
mod transition;
#[cfg(test)]
mod transition_tests;
#[cfg(test)]
mod undone_tests;
mod wishes;

pub use allocate::allocate;
pub use change::{
    Founding, Joiner, add_voters, check_texts, choose_voters, found, has_wrong_copies, join, may_fail,
    most_failures, replace_voter, shares, under_replicated,
};
pub use epochs::{arcs_of, changed_in, common_epoch, is_same_change, stamp_arcs};
pub use keyspaces::{create_keyspace, delete_keyspace, deleted, mark_live};
pub use names::{Hearing, free_names, names_wait_for};
pub use next::{ChangeError, next};
pub use parts::{merge, split};
pub use planner::{
    ArcSize, Move, Plan, Refused, Share, Sizes, Split, Wish, plan, shares as planned_shares, small_arcs,
};
pub use recover::{Recovery, follows, recover};
pub use terms::has_terms;
pub use transition::{Evidence, begin, cancel, rebalance, refuse, sources_needed, start, step, unheard_of};
pub use wishes::{current, given_up, lost_by, nodes_of, retires, stays};
