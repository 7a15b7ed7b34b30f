//! The Paxos register that decides the ring, one epoch after the other.

mod paxos;
mod register;
#[cfg(test)]
mod tests;

pub use paxos::{Acceptor, Ballot, Promise};
pub use register::{Register, RegisterError};
