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
/// The most keys on a page of a scan.
pub const MAX_PAGE: u32 = 10_000;
/// The keyspace that `god init` makes.
pub const DEFAULT_KEYSPACE: &str = "default";
