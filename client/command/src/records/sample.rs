//! Where to cut an ordered keyspace, so that a file's keys are spread evenly over its arcs.

use bytes::Bytes;

/// The most keys that are kept to choose from.
const MOST: usize = 1 << 14;

/// Some of the keys of a file, evenly taken: every key at first, and half as many each time there are too many.
#[derive(Debug)]
pub struct Sample {
    kept: Vec<Bytes>,
    seen: usize,
    stride: usize,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample { kept: Vec::new(), seen: 0, stride: 1 }
    }
}

impl Sample {
    /// Shows it the next key.
    pub fn add(&mut self, key: Bytes) {
        if self.seen.is_multiple_of(self.stride) {
            self.kept.push(key);
        }
        self.seen += 1;
        if self.kept.len() == MOST {
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.stride *= 2;
        }
    }

    /// Up to `parts - 1` keys, in order, with about as many of the file's keys between each two.
    pub fn split_points(self, parts: usize) -> Vec<Bytes> {
        let mut kept = self.kept;
        kept.sort_unstable();
        kept.dedup();
        let mut points: Vec<Bytes> =
            (1..parts).filter_map(|part| kept.get(part * kept.len() / parts)).cloned().collect();
        points.dedup();
        // Nothing is before the first key: a cut there would leave an arc empty.
        if !points.is_empty() && points.first() == kept.first() {
            points.remove(0);
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_points(keys: impl Iterator<Item = Bytes>, parts: usize) -> Vec<Bytes> {
        let mut sample = Sample::default();
        keys.for_each(|key| sample.add(key));
        sample.split_points(parts)
    }

    fn keys(count: u32) -> impl Iterator<Item = Bytes> {
        // In an order that is not theirs.
        (0..count).map(move |n| Bytes::from(format!("{:08}", (u64::from(n) * 7_919) % u64::from(count))))
    }

    #[test]
    fn keys_are_cut_into_parts_of_about_the_same_size() {
        for count in [100, 1_000, 100_003] {
            let points = split_points(keys(count), 10);
            assert_eq!(points.len(), 9, "of {count}");
            let mut bounds = vec![Bytes::new()];
            bounds.extend(points);
            let mut sizes = vec![0u32; bounds.len()];
            for key in keys(count) {
                sizes[bounds.partition_point(|bound| *bound <= key) - 1] += 1;
            }
            let even = count / 10;
            assert!(sizes.iter().all(|size| (even * 9 / 10..=even * 11 / 10).contains(size)), "{sizes:?}");
        }
    }

    #[test]
    fn few_keys_give_few_cuts_in_order_and_no_empty_arc() {
        assert!(split_points(keys(0), 10).is_empty());
        assert!(split_points(keys(1), 10).is_empty());
        let points = split_points(keys(3), 10);
        assert!(points.is_sorted() && points.len() == 2);
        assert!(split_points(keys(50), 1).is_empty());
    }
}
