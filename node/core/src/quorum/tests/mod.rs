//! The coordinator against replicas in memory, over a scripted network, in paused time.
#![allow(clippy::unwrap_used)]

mod apart;
mod expiry;
mod hints;
mod order;
mod reads;
mod withheld;
pub mod world;
mod writes;
