//! What a node keeps on a real disk: RocksDB behind the engine's trait, and the directory that it lies in.

mod datadir;
mod engine;
mod options;
mod pressure;

pub use datadir::{DataDir, DataDirError, FORMAT};
pub use engine::{RocksEngine, RocksSettings};
