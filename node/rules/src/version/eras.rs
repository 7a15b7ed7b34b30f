//! Spans of time in which this node stamped, so that it does not do so twice. Pure.
//!
//! A wall that was set far back comes by moments again for which versions were stamped already. What was stamped lies
//! in eras: one begins with each start, and when the mark of the one before was given up.

/// The most eras that are remembered. Of more, those that lie closest together become one.
pub const MOST: usize = 16;
/// Where the era ends that is still stamped in.
const OPEN: u64 = u64::MAX;

/// Eras that are over, in milliseconds, the ends among them; and where the present one began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eras {
    over: Vec<(u64, u64)>,
    began_ms: Option<u64>,
}

impl Eras {
    /// One era that is over, if it is one.
    pub fn before(from_ms: u64, to_ms: u64) -> Eras {
        let mut eras = Eras::default();
        if to_ms > 0 {
            eras.add(from_ms, to_ms);
        }
        eras
    }

    /// Of what is stored. An era that was not ended did so at the mark, above which nothing was stamped.
    pub fn decode(stored: &[u8], mark_ms: u64) -> Option<Eras> {
        let (pairs, rest) = stored.as_chunks::<16>();
        if !rest.is_empty() {
            return None;
        }
        let mut eras = Eras::default();
        for pair in pairs {
            let (from, to) = pair.split_first_chunk::<8>()?;
            let (from, to) = (u64::from_be_bytes(*from), u64::from_be_bytes(*to.first_chunk::<8>()?));
            eras.add(from, if to == OPEN { mark_ms } else { to });
        }
        Some(eras)
    }

    /// As stored: two numbers of 8 bytes, big endian, an era.
    pub fn encode(&self) -> Vec<u8> {
        let present = self.began_ms.map(|began| (began, OPEN));
        let all = self.over.iter().copied().chain(present);
        all.flat_map(|(from, to)| [from.to_be_bytes(), to.to_be_bytes()]).flatten().collect()
    }

    /// The present era begins, unless it has.
    pub fn begin(&mut self, ms: u64) {
        self.began_ms.get_or_insert(ms);
    }

    /// The present era ends.
    pub fn end(&mut self, ms: u64) {
        if let Some(began) = self.began_ms.take() {
            self.add(began, ms);
        }
    }

    /// Where the era ends that is over and has a moment in common with a span.
    pub fn over_in(&self, from_ms: u64, to_ms: u64) -> Option<u64> {
        let meets = |(from, to): &&(u64, u64)| *from <= to_ms && from_ms <= *to;
        self.over.iter().find(meets).map(|(_, to)| *to)
    }

    fn add(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        self.over.push((from, to));
        self.over.sort_unstable();
        while self.over.len() > MOST {
            let gap = |at: &usize| match self.over.get(*at..*at + 2) {
                Some([(_, end), (start, _)]) => start.saturating_sub(*end),
                _ => u64::MAX,
            };
            let Some(at) = (0..self.over.len() - 1).min_by_key(gap) else { return };
            let (_, end) = self.over.remove(at + 1);
            if let Some((_, to)) = self.over.get_mut(at) {
                *to = end.max(*to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// VERSION-UNIQUE: what was an era stays one, however many there are.
        #[test]
        fn no_era_is_forgotten(spans in proptest::collection::vec((0u64..1_000, 0u64..20), 0..40)) {
            let mut eras = Eras::default();
            for (from, length) in &spans {
                eras.begin(*from);
                eras.end(from + length);
            }
            let eras = Eras::decode(&eras.encode(), 0).unwrap();
            prop_assert!(eras.over.len() <= MOST);
            for (from, length) in spans {
                prop_assert!((from..=from + length).all(|ms| eras.over_in(ms, ms) >= Some(ms)));
            }
        }
    }

    #[test]
    fn an_era_that_a_crash_ended_did_so_at_the_mark() {
        let mut eras = Eras::default();
        eras.begin(5);
        let found = Eras::decode(&eras.encode(), 9).unwrap();
        assert_eq!((found.over_in(9, 20), found.over_in(10, 20), found.over_in(0, 4)), (Some(9), None, None));
        assert_eq!(Eras::decode(&[0; 15], 9), None);
    }
}
