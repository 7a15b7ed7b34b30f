//! Nothing. Its manifest is what counts; docs/HACKING.md says what for.
