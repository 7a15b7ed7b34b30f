//! The coordinator: fan-out, quorum counting, repair, hints, hedging.
