//! The `god` command as a process: alone, beside a cluster in memory, in a terminal, and in shells.

#![allow(clippy::unwrap_used, clippy::format_push_string)]

mod chance;
mod cli;
mod cluster;
mod descriptors;
#[path = "../../../tests/fake/mod.rs"]
mod fake;
mod load;
mod pty;
mod random;
mod run;
mod shells;
mod terminal;
