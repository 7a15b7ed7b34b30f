//! GoD on the wire: the generated protocol messages, and the meaning that both ends must agree on.
//!
//! - [`address`]: hosts and ports as people write them.
//! - [`answer`]: answers and refusals, in the shapes of the messages.
//! - [`codec`]: how servers read messages.
//! - [`ids`]: the small numbers that name nodes, keyspaces, arcs and epochs.
//! - [`position`]: where a key stands in the one order that everything is kept in.
//! - [`version`]: when and where a record was written.
//! - [`record`]: what stands at a position.
//! - [`keyspace`]: what a new keyspace may be.
//! - [`ring`]: the validated ring document, and lookups in it.
//! - [`time`]: times as people write them, and times to live.
//!
//! Nothing here does I/O, reads a clock or draws a random number.

pub mod address;
pub mod answer;
pub mod codec;
pub mod ids;
pub mod keyspace;
pub mod position;
pub mod record;
pub mod ring;
pub mod time;
pub mod version;

mod god {
    pub mod v1 {
        #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
        tonic::include_proto!("god.v1");
        include!(concat!(env!("OUT_DIR"), "/servers/god.v1.rs"));
    }
    pub mod peer {
        pub mod v1 {
            #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
            tonic::include_proto!("god.peer.v1");
            include!(concat!(env!("OUT_DIR"), "/servers/god.peer.v1.rs"));
        }
    }
}

use std::time::Duration;

/// Messages between nodes, generated from `god/peer/v1/peer.proto`.
pub use god::peer::v1 as peer;
/// Messages of the client protocol, generated from `god/v1/*.proto`.
pub use god::v1;

/// The encoded descriptors of all protocol files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest key, in bytes.
pub const MAX_KEY: usize = 4 << 10;
/// The largest value, in bytes.
pub const MAX_VALUE: usize = 8 << 20;
/// The largest message a door or a peer takes, in bytes: one largest value and room around it.
pub const MAX_MESSAGE: usize = 12 << 20;
/// The most calls in one batch.
pub const MAX_BATCH: usize = 1024;
/// The most elements that all lists of a message may have together, as they are in it: what they take once they are
/// decoded is many times what they take on the wire. More than any message of this version has: the longest pages and
/// rings are below it.
pub const MAX_ELEMENTS: usize = 1 << 18;
/// The most keys on a page of a scan.
pub const MAX_PAGE: u32 = 10_000;
/// Keys on a page of a scan that does not say how many.
pub const DEFAULT_PAGE: u32 = 1_000;
/// Bytes of keys and values at which a page ends, but for a larger single one: a page and one largest value more fit
/// in a message.
pub const PAGE_BYTES: usize = 4 << 20;
/// The longest that any request may take, whatever it says itself.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// A version further ahead of a node's clock than this is refused, in milliseconds (invariant CLOCK-BOUND). A node
/// whose clock is further off the others' writes nothing.
pub const MAX_AHEAD_MS: u64 = 500;
/// Version of the protocol between nodes, in the first frame of a stream: others are not spoken to.
pub const PEER_PROTOCOL: u32 = 1;
/// The keyspace that `god init` makes.
pub const DEFAULT_KEYSPACE: &str = "default";
