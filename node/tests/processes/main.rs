//! Real nodes, real disks, real signals: what a cluster keeps when its processes are killed, stopped, set to a wrong
//! time, or given a damaged disk, and when a machine loses power.
//!
//! Three clusters run at a time, on free ports of the loopback interface, in directories of their own. Only processes
//! that a test started are signalled.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../client/command/tests/command/chance.rs"]
mod chance;
mod changes;
mod client;
mod clocks;
mod cluster;
mod command;
mod connections;
mod copies;
mod damage;
mod descriptors;
mod directory;
mod doors;
mod examples;
mod full_disk;
mod hang;
mod hostile;
mod kill;
mod load;
mod metrics;
mod operations;
mod phases;
mod power;
mod quorums;
mod random;
mod ring;
mod settings;
mod shell;
mod tour;
