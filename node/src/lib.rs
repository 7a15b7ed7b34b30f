//! The program `god-node`: what a node is set to. The node itself is `god_core`, its disk `god_rocks`.

pub mod settings;

/// Not for RocksDB, whose memory comes from `malloc`: whatever stands in for that is in the way of who sets a clock by
/// libfaketime, as the tests of clocks do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
