//! Whole clusters in simulated time. One program for all of them: each takes its time to link.

mod clocks;
mod defects;
mod keyspaces;
mod power;
mod runs;
mod thresholds;
mod votes;
