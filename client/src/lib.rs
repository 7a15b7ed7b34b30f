//! Client of GoD, an ordered, replicated key-value store.
//!
//! ```no_run
//! use god_client::{Client, Error, Range};
//!
//! # async fn f() -> god_client::Result<()> {
//! let client = Client::builder().servers(["db-0:7000", "db-1:7000"]).connect().await?;
//! let users = client.keyspace("users");
//!
//! match users.put("user/alice", "…").await {
//!     Ok(written) => println!("on {} replicas", written.acks),
//!     Err(Error::Unknown { .. }) => println!("perhaps: read it, or write it again"),
//!     Err(error) => println!("nothing was written: {error}"),
//! }
//! println!("{} users", users.count(Range::prefix("user/")).await?);
//! # Ok(()) }
//! ```
//!
//! What it does for a program:
//!
//! - **Goes straight to the data.** It knows the ring, and sends a call about a key to a node that holds it. What it
//!   cannot reach itself it asks of the servers it was given.
//! - **Shares frames.** Calls to a node travel over few connections, many to a frame, answers in any order. Each call
//!   has a deadline; the number in flight is bounded, and a caller beyond it waits.
//! - **Tries again where that is safe**: reads, and writes that certainly were not made; never a write whose outcome is
//!   [unknown](Error::Unknown). A budget keeps that from multiplying the load of a cluster in trouble.
//! - **Reads what it wrote**, in a [`Session`].
//! - **Says what happens**, by `tracing` spans at the level `debug`.

#![warn(missing_docs)]

mod ask;
mod call;
mod client;
mod cluster;
mod connection;
mod consistency;
mod entry;
mod error;
mod keyspace;
mod node;
mod order;
mod range;
mod retry;
mod routes;
mod scan;
mod session;
mod settings;
mod transport;

pub use client::Client;
pub use consistency::Consistency;
pub use entry::{Entry, Lookup, Rank, Value, Written};
pub use error::{Error, Result};
pub use god_proto::MAX_TIMEOUT;
pub use god_proto::time::MAX_TTL;
pub use god_proto::{v1::Reason, version::Version};
pub use keyspace::Keyspace;
pub use range::Range;
pub use scan::Scan;
pub use session::Session;
pub use settings::Builder;

/// The protocol's messages, for what operators ask.
pub use god_proto::v1 as proto;
