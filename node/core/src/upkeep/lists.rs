//! What a pull lists, once it compares no more.

use god_proto::position::PositionRange;

/// Ranges to be listed, and the most entries that either node has in each.
#[derive(Default)]
pub(super) struct Lists(Vec<(PositionRange, u64)>);

impl Lists {
    pub(super) fn add(&mut self, range: PositionRange, entries: u64) {
        self.0.push((range, entries));
    }

    /// Ranges that follow on each other, as many together as give a full `page` of entries: where two copies differ all
    /// over, each of its own would cost a question.
    pub(super) fn joined(mut self, page: u64) -> Vec<Vec<PositionRange>> {
        self.0.sort_by(|(a, _), (b, _)| a.start.cmp(&b.start));
        let mut joined: Vec<(Vec<PositionRange>, u64)> = Vec::new();
        for (range, entries) in self.0 {
            match joined.last_mut() {
                Some((parts, so_far))
                    if parts.last().is_some_and(|last| last.end == range.start)
                        && so_far.saturating_add(entries) <= page =>
                {
                    parts.push(range);
                    *so_far += entries;
                }
                _ => joined.push((vec![range], entries)),
            }
        }
        joined.into_iter().map(|(parts, _)| parts).collect()
    }
}
