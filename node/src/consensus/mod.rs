//! The Paxos register that decides the ring.
