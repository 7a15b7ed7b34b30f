//! The Paxos register that decides the ring, one epoch after the other.

mod newest;
mod register;
mod survivors;
#[cfg(test)]
mod tests;
mod votes;

pub use god_rules::paxos::{Acceptor, Ballot, Promise};
pub use register::{Register, RegisterError};
