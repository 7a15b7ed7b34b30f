//! The program `god-node`: what a node is set to. The node itself is `god_core`, its disk `god_rocks`.

pub mod settings;
