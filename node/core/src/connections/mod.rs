//! What a node's doors have in common: it accepts connections within bounds, serves HTTP on them, and ends those that
//! cost a slot and give nothing.
//!
//! - CONNECTIONS-BOUNDED: each door has a number of slots. Where all are taken, a newcomer gets the slot of one that
//!   has said nothing yet, else of the one that has been without a request for longest, else none.
//! - A connection that does not say what it wants is closed after a time, one without requests after a longer one.
//! - An answer that is not taken for a time ends its connection: what waits to be sent is memory.
//! - [`outbox`]: answers of a stream wait there, so that the work on them goes on whether anybody reads or not.

mod ahead;
mod descriptors;
mod outbox;
mod request;
mod serve;
mod slots;
mod socket;

pub(crate) use outbox::{Outbox, OutboxSlot, outbox};
pub(crate) use request::Spent;
pub use {
    descriptors::{DoorConnections, raise, share},
    outbox::Outgoing,
    serve::Times,
};
pub(crate) use {
    serve::{DoorLimits, Http2, Protocol, Remote, serve},
    slots::describe,
};
