//! The radix index: digests, counts, rank and selection over any range of positions.
