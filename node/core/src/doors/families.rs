//! What each family of metrics counts. Connections and the budget say so themselves; these are counted in rooms that
//! know of no door, and by storage. `.ci/tidy` holds this against what is counted.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes all families but those of a process and of this build.
pub(super) fn describe() {
    crate::connections::describe();
    crate::budget::describe();
    doors();
    node();
    quorum();
    upkeep();
    storage();
}

fn doors() {
    describe_counter!("god_doors_requests_total", "Requests that were answered, by door and method");
    describe_counter!("god_doors_errors_total", "Requests that failed, by door, method and reason");
    describe_histogram!("god_doors_seconds", Unit::Seconds, "Time to answer a request, or a batch of them");
    describe_counter!("god_peer_calls_total", "Calls to each peer");
    describe_counter!("god_peer_errors_total", "Calls to each peer that failed, by kind");
    describe_counter!(
        "god_peer_frames_total",
        "Frames sent to each peer; calls over frames is the batch size"
    );
    describe_histogram!(
        "god_peer_call_seconds",
        Unit::Seconds,
        "Time from call to answer, of one call in 16"
    );
    describe_gauge!("god_peer_queue_requests", "Calls that wait to be sent, by peer and connection");
    describe_counter!("god_peer_served_requests_total", "Requests from other nodes");
    describe_counter!("god_peer_served_frames_total", "Frames of answers to other nodes");
    describe_counter!(
        "god_peer_served_late_total",
        "Requests from other nodes that were not answered in time"
    );
    describe_counter!(
        "god_peer_refused_starts_total",
        "Processes on a copy or an old state of a node's directory that were refused"
    );
}

fn node() {
    describe_gauge!("god_node_ready", "1 when the node takes requests, else 0: /readyz says why");
    describe_gauge!("god_node_memory_bytes", Unit::Bytes, "Memory of the process that is resident");
    describe_gauge!("god_consensus_epoch", "The epoch of the ring that the node knows");
    describe_counter!("god_consensus_retries_total", "Changes of the ring that were tried again");
    describe_gauge!(
        "god_version_clock_ahead_seconds",
        Unit::Seconds,
        "How far the node's clock is ahead of the others'"
    );
    describe_gauge!("god_membership_peers", "Other nodes, by state");
    describe_gauge!(
        "god_membership_clock_ahead_seconds",
        Unit::Seconds,
        "How far each peer's clock is ahead of this node's"
    );
    describe_counter!("god_membership_gossip_total", "Datagrams of gossip, in and out");
    describe_counter!("god_membership_pings_missed_total", "Pings that were not answered in time, by peer");
}

fn quorum() {
    describe_counter!(
        "god_quorum_hedges_total",
        "Reads that were asked of one replica more, as one was slow"
    );
    describe_counter!("god_quorum_read_repairs_total", "Keys that a read repaired before it was answered");
    describe_counter!(
        "god_quorum_torn_ranges_total",
        "Ranges whose replicas differed while they were counted"
    );
    describe_counter!(
        "god_quorum_superseded_total",
        "Writes that met a newer one under way and were stamped anew"
    );
    describe_counter!(
        "god_quorum_background_refused_total",
        "Answered writes whose last replicas get a hint, as too many others still wait for theirs"
    );
    describe_gauge!("god_quorum_hints_pending", "Writes that are kept for nodes that are away");
    describe_gauge!("god_quorum_hints_bytes", Unit::Bytes, "Bytes of them");
    describe_counter!("god_quorum_hints_replayed_total", "Hints that their nodes took");
    describe_counter!(
        "god_quorum_hints_dropped_total",
        "Hints for which there was no room (hint-limit), or that were damaged"
    );
    describe_counter!(
        "god_quorum_hints_damaged_total",
        "Times that hints could not be read and were dropped"
    );
    describe_counter!(
        "god_quorum_hints_set_aside_total",
        "Hints that a node refuses, or that others must take"
    );
    describe_gauge!("god_quorum_suspect_arcs", "Arcs that hints were dropped of: they are compared soon");
}

fn upkeep() {
    describe_counter!("god_upkeep_arcs_compared_total", "Comparisons of an arc's replicas");
    describe_gauge!("god_upkeep_suspect_arcs", "Arcs that wait to be compared before their turn");
    describe_counter!("god_upkeep_compared_bytes_total", "Bytes that comparisons transferred");
    describe_counter!("god_upkeep_mended_entries_total", "Entries that a comparison brought");
    describe_counter!(
        "god_upkeep_recalled_entries_total",
        "Entries that came back after the machine stopped without a clean end"
    );
    describe_counter!("god_upkeep_floors_raised_total", "Arcs below whose floor nothing deleted comes back");
    describe_counter!(
        "god_upkeep_tombstones_purged_total",
        "Deletions that every replica had and that were forgotten"
    );
    describe_counter!("god_upkeep_rests_total", "Pages after which copying gave way to clients");
    describe_counter!("god_upkeep_expired_total", "Expired keys that became deletions");
    describe_counter!("god_upkeep_deleted_ranges_total", "Ranges of deleted keyspaces that were dropped");
    describe_counter!("god_upkeep_cleaned_ranges_total", "Ranges that others own and that were dropped");
    describe_counter!("god_upkeep_handed_over_entries_total", "Misplaced entries that their owners took");
    describe_gauge!("god_upkeep_unevenness", "What the fullest node holds, in shares of its own; 1: even");
    describe_counter!("god_upkeep_rebalances_total", "Operations that were begun to even data out");
    describe_counter!("god_upkeep_merged_arcs_total", "Small arcs that were merged with a neighbour");
}

fn storage() {
    describe_gauge!("god_engine_figure", "What RocksDB says of itself, by name");
    describe_histogram!("god_engine_commit_seconds", Unit::Seconds, "Time to write a group of jobs");
    describe_histogram!("god_engine_sync_seconds", Unit::Seconds, "Time to sync what was written");
    describe_histogram!("god_engine_group_jobs", "Jobs that were written together");
    describe_gauge!("god_engine_queue_depth", "Jobs that wait to be written");
    describe_counter!("god_engine_busy_total", "Jobs that were refused as storage was behind, by what");
    describe_counter!(
        "god_engine_offload_waits_total",
        "Work for the disk that found no thread free and waited"
    );
    describe_counter!(
        "god_engine_offload_rests_total",
        "Rests of threads that stand back, as others wanted their processor"
    );
    describe_counter!(
        "god_engine_offload_refused_total",
        "Reads that were refused as too many waited for the disk"
    );
    describe_counter!("god_engine_read_errors_total", "Reads that RocksDB failed");
    describe_gauge!("god_radix_buckets", "Buckets of the index");
    describe_gauge!("god_radix_memory_bytes", Unit::Bytes, "Memory of the index");
    describe_gauge!("god_radix_entries", "Entries that are stored, deletions among them");
    describe_gauge!("god_radix_live_keys", "Keys that are stored");
    describe_counter!("god_radix_written_total", "Entries that were to be stored, by what came of it");
    describe_counter!("god_radix_entries_dropped_total", "Entries that were dropped with their range");
    describe_counter!("god_radix_rows_written_total", "Rows of the index that were written");
    describe_counter!("god_radix_damaged_total", "Damaged records that were met, by what was done");
    describe_counter!(
        "god_radix_version_clashes_total",
        "Different records of one version; there should be none"
    );
}
