//! Whose turn it is: the lines of one key are written one after the other, in the file's order, so that the last one
//! wins; those of different keys all at once. No I/O.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Keys whose writes are under way, each with what waits behind it.
#[derive(Debug)]
pub struct Turns<T> {
    under_way: HashMap<Bytes, VecDeque<T>>,
    waiting: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { under_way: HashMap::new(), waiting: 0 }
    }
}

impl<T> Turns<T> {
    /// The next line of the file has this key. Gives it back if its turn is now; else it waits.
    pub fn comes(&mut self, key: &Bytes, line: T) -> Option<T> {
        if let Some(behind) = self.under_way.get_mut(key) {
            behind.push_back(line);
            self.waiting += 1;
            return None;
        }
        self.under_way.insert(key.clone(), VecDeque::new());
        Some(line)
    }

    /// A write of this key has ended. Gives the line whose turn is next.
    pub fn ended(&mut self, key: &Bytes) -> Option<T> {
        let next = self.under_way.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_some() {
            self.waiting -= 1;
        } else {
            self.under_way.remove(key);
        }
        next
    }

    /// Lines whose turn has not come.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::HashSet;

    proptest! {
        /// Whichever write ends next, no key has two under way, and each key's lines go in the file's order.
        #[test]
        fn lines_of_a_key_go_one_by_one_in_order_and_none_is_left(
            keys in vec(0u8..4, 0..60),
            which in vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut turns = Turns::default();
            let mut under_way: Vec<(Bytes, usize)> = Vec::new();
            let mut went: HashMap<Bytes, Vec<usize>> = HashMap::new();
            let mut coming = keys.iter().enumerate();
            let mut which = which.iter();
            loop {
                let next = match coming.next() {
                    Some((line, key)) => {
                        let key = Bytes::from(vec![*key]);
                        turns.comes(&key, line).map(|line| (key, line))
                    }
                    None if under_way.is_empty() => break,
                    None => {
                        let at = which.next().map_or(0, |index| index.index(under_way.len()));
                        let (key, _) = under_way.swap_remove(at);
                        turns.ended(&key).map(|line| (key, line))
                    }
                };
                if let Some((key, line)) = next {
                    went.entry(key.clone()).or_default().push(line);
                    under_way.push((key, line));
                }
                let distinct: HashSet<&Bytes> = under_way.iter().map(|(key, _)| key).collect();
                prop_assert_eq!(distinct.len(), under_way.len());
            }
            prop_assert!(went.values().all(|lines| lines.is_sorted()));
            prop_assert_eq!(went.values().map(Vec::len).sum::<usize>(), keys.len());
            prop_assert_eq!(turns.waiting(), 0);
            prop_assert!(turns.under_way.is_empty(), "memory is kept for keys that are done");
        }
    }
}
