//! Which seeds are run: those that once failed, those that were asked for, and fresh ones for as long as there is time.

use std::time::Duration;

/// Seeds in the order in which they are run.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// Those that a file lists.
    pub known: Vec<u64>,
    /// The first of those that were asked for, and how many there are.
    pub from: u64,
    /// See `from`.
    pub count: u64,
    /// The first of those that nobody has run, and for how long more of them are begun.
    pub fresh: Option<(u64, Duration)>,
}

impl Seeds {
    /// How many there are without fresh ones.
    pub fn listed(&self) -> u64 {
        self.count.saturating_add(self.known.len() as u64)
    }

    /// The seed at a place, once fresh ones have been run for `since`. `None`: there are no more. The first fresh one
    /// is run however late it is.
    pub fn at(&self, place: u64, since: Duration) -> Option<u64> {
        if let Some(known) = usize::try_from(place).ok().and_then(|at| self.known.get(at)) {
            return Some(*known);
        }
        let asked = place - self.known.len() as u64;
        if asked < self.count {
            return Some(self.from.saturating_add(asked));
        }
        let (first, most) = self.fresh?;
        let fresh = asked - self.count;
        (fresh == 0 || since < most).then(|| first.saturating_add(fresh))
    }
}

/// The seeds that a text lists: a number begins each line. Empty lines, and those that begin with `#`, are for people.
///
/// # Errors
///
/// The number of the line that does not begin with a seed, and what it says.
pub fn read(text: &str) -> Result<Vec<u64>, (usize, String)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let seed = line.split_whitespace().next().and_then(|word| word.parse().ok());
            seed.ok_or_else(|| (at, line.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn known_seeds_come_first_then_those_asked_for_then_fresh_ones_while_there_is_time() {
        let seeds = Seeds { known: vec![9, 58], from: 1, count: 3, fresh: Some((7_000, MINUTE)) };
        let all: Vec<Option<u64>> = (0..7).map(|place| seeds.at(place, Duration::ZERO)).collect();
        assert_eq!(all, [9, 58, 1, 2, 3, 7_000, 7_001].map(Some));
        assert_eq!(seeds.listed(), 5);
        assert_eq!(seeds.at(5, MINUTE), Some(7_000), "one at least is fresh");
        assert_eq!(seeds.at(6, MINUTE), None);
        assert_eq!(seeds.at(4, MINUTE * 2), Some(3), "time bounds fresh ones alone");
        assert_eq!(Seeds { fresh: None, ..seeds }.at(5, Duration::ZERO), None);
    }

    #[test]
    fn a_list_of_seeds_says_which_line_is_none() {
        assert_eq!(read("# why\n\n 9  it failed\n58\n"), Ok(vec![9, 58]));
        assert_eq!(read("9\nnine it failed"), Err((2, "nine it failed".to_owned())));
    }
}
