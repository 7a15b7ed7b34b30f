//! Real sockets on loopback, and real nodes at both ends.
