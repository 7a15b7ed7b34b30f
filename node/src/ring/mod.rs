//! The ring as this node knows it, and the pure rules by which it changes.
//!
//! [`god_proto::ring::Ring`] is the validated document; it is shared with clients.

mod current;

pub use current::CurrentRing;
