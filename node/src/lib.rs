//! The program `god-node`: what a node is set to. The node itself is `god_core`, its disk `god_rocks`.

pub mod settings;

/// It stands in for `malloc` too, so that RocksDB's memory comes from it (docs/BENCHMARKS.md says what that gives).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
