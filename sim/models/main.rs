//! Models of the protocols, of which every state is visited within the bounds that each module names.
//!
//! A model is checked as the protocol is, and again with each of its rules broken: a rule whose loss shows in no state
//! is either not needed or not modelled. `--nocapture` shows how many states there are, and how each loss shows.

mod floor;
mod quorums;
mod register;
mod restamp;
mod transition;

use stateright::{Checker, HasDiscoveries, Model};
use std::{fmt::Debug, hash::Hash, time::Instant};

/// Some nodes, a bit each.
type Members = u8;

/// The nodes of a mask.
fn nodes(mask: Members) -> impl Iterator<Item = usize> {
    (0..Members::BITS as usize).filter(move |at| mask & 1 << at != 0)
}

/// Renames two nodes in a mask.
fn swap(mask: &mut Members, a: usize, b: usize) {
    let differ = (*mask >> a ^ *mask >> b) & 1;
    *mask ^= differ << a | differ << b;
}

/// Visits every state: what must always hold does, and what must be possible is.
fn holds<M>(name: &str, model: M)
where
    M: Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>,
    M: Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    report(name, &checker, begun);
    checker.assert_properties();
}

/// Looks for a way to a state in which something does not hold that always should.
fn breaks<M>(name: &str, model: M, property: &'static str)
where
    M: Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>,
    M: Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    report(name, &checker, begun);
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{name}: no state shows that \"{property}\" is broken"));
    println!("  \"{property}\" is broken by {:?}", path.into_actions());
}

fn report<M: Model>(name: &str, checker: &impl Checker<M>, begun: Instant) {
    println!(
        "{name}: {} states, {} steps deep, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64()
    );
}
