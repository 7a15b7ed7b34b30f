//! The room as a whole, over a network in memory and in paused time.
#![allow(clippy::unwrap_used)]

mod gossip;
mod join;
mod net;
mod pinger;
