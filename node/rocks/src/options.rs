//! How RocksDB is set, and why.

use god_store::engine::Table;
use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, DataBlockIndexType, LogLevel, Options,
    WriteBufferManager,
};
use std::hash::{BuildHasher as _, RandomState};

/// The memory that all tables share: one cache, which memtables are charged to as well, so that one setting bounds
/// the sum.
pub fn shared_memory(memory: u64) -> (Cache, WriteBufferManager) {
    let cache = Cache::new_lru_cache(memory as usize);
    // No stalls of RocksDB's own: the committer refuses work before it comes to that.
    let buffers =
        WriteBufferManager::new_write_buffer_manager_with_cache(memory as usize / 4, false, cache.clone());
    (cache, buffers)
}

/// A memtable of the data table: an eighth of the memory, so that two of them fit beside the cache.
fn memtable(memory: u64) -> usize {
    (memory as usize / 8).clamp(1 << 20, 128 << 20)
}

/// What part of its full size a memtable has here: from three quarters to all of it, by lot. Replicas of the same keys
/// take the same writes, so that memtables of one size would be full, flushed and compacted at the same time on all of
/// them, and no quorum could do without those that are at it.
pub fn drawn_part() -> f64 {
    let drawn = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    0.75 + drawn / 4.0
}

/// Settings of each table that the binding makes only once it is open.
///
/// A file at the bottom that was written while a snapshot was held is written once more as soon as that is released, to
/// drop what only the snapshot saw. Here one is held nearly always, for a moment: so every file would be written twice.
/// What little it drops can wait until an hour later, if the file is not compacted with others before.
pub const WHEN_OPEN: [(&str, &str); 1] = [("bottommost_file_compaction_delay", "3600")];

/// Settings of the whole database.
pub fn db_options(memory: u64, buffers: &WriteBufferManager) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(buffers);
    options.set_paranoid_checks(true);
    // A crash leaves a torn last record, and that is cut off. Anything else is damage, and an error: carrying on from
    // a hole would serve old data as new.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A recycled log ends in old records, which a torn end could not be told from.
    options.set_recycle_log_file_num(0);
    // Bounds the log to replay at start; memtables that hold it back are flushed.
    options.set_max_total_wal_size((memtable(memory) as u64 * 3).max(64 << 20));
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    // Dirty pages go out as they come rather than in one burst.
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_avoid_unnecessary_blocking_io(true);
    // There is one writer.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options.set_log_level(LogLevel::Warn);
    options
}

/// Settings of one table, whose memtables have this part of their full size ([`drawn_part`]).
pub fn cf_options(table: Table, memory: u64, part: f64, cache: &Cache) -> Options {
    let of_full = |size: usize| (size as f64 * part) as usize;
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_format_version(6);
    // In the cache, so that memory stays bounded as files come to be; first-level ones stay, they are always needed.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    match table {
        Table::Data => {
            blocks.set_block_size(8 << 10);
            // A point read hashes to its place in the block rather than halving its way there.
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            blocks.set_data_block_hash_ratio(0.75);
            // Each write reads its predecessor, and most reads of absent keys need no disk.
            blocks.set_bloom_filter(10.0, false);
            blocks.set_optimize_filters_for_memory(true);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.05);
            options.set_write_buffer_size(of_full(memtable(memory)));
            options.set_max_write_buffer_number(4);
            options.set_target_file_size_base(memtable(memory).max(16 << 20) as u64);
            options.set_max_bytes_for_level_base((memtable(memory) as u64 * 4).max(64 << 20));
            options.set_level_compaction_dynamic_level_bytes(true);
        }
        // Small rows, rewritten often: what matters is that they leave the write-ahead log now and then.
        Table::Index | Table::System | Table::Hints => {
            blocks.set_block_size(4 << 10);
            options.set_write_buffer_size(of_full((memtable(memory) / 4).clamp(1 << 20, 16 << 20)));
            options.set_max_write_buffer_number(2);
        }
    }
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_level_zero_slowdown_writes_trigger(20);
    options.set_level_zero_stop_writes_trigger(36);
    options.set_block_based_table_factory(&blocks);
    options
}
