//! Client of GoD.
