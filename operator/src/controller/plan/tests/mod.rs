//! `plan` against a model of the API server, of the controllers that live there, and of the ring.
//!
//! - `model`: the world; what may happen in it; what must never happen.
//! - `walk`: every interleaving for small clusters, random ones beyond, and broken plans that must be caught.
//! - `failures`: how others lost data, one test each.
//! - `life`: what a person would try.

mod failures;
mod life;
pub(in crate::controller) mod model;
mod walk;
