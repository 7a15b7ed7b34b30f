//! What is given up of replicas' words where there is no memory for all of them (BUDGET). Pure, but for the budget.

use super::{
    merge::{Page, PageEntry},
    poll::Said,
};
use crate::{
    budget::{Budget, Paid},
    peer::{Damaged, Held, Told},
};
use god_proto::peer;
use std::{cmp::Reverse, collections::BTreeSet};

/// Bytes of a value, which are free again once it is given up.
fn value(held: Option<&Held<Told>>) -> usize {
    match held {
        Some(Ok(Some(told))) => told.head().value.len(),
        _ => 0,
    }
}

/// Makes an answer small enough to be paid for: gives up positions, those first that take the most, with what others
/// said of them, which is paid for already. As few as need be, and they are noted. Says whether anything is left of the
/// answer. Cost: a sort, and a look at what there is for each position that is given up.
pub(super) fn fit(
    budget: &Budget,
    paid: &mut Paid,
    said: &mut [Said],
    answer: &mut [Held<Told>],
    given_up: &mut BTreeSet<usize>,
) -> bool {
    let mut left = size_of_val(answer).max(answer.len() * size_of::<peer::Entry>());
    let mut by_size = Vec::with_capacity(answer.len());
    for (at, held) in answer.iter_mut().enumerate() {
        if given_up.contains(&at) {
            *held = Err(Damaged);
        } else if held.is_ok() {
            let own = value(Some(held));
            let others: usize = said.iter().map(|(_, records)| value(records.get(at))).sum();
            left += own;
            by_size.push((own + others, at));
        }
    }
    // What others gave up may be enough.
    if !by_size.is_empty() && paid.pay_if_left(budget, left) {
        return true;
    }
    by_size.sort_unstable_by_key(|(bytes, at)| (Reverse(*bytes), Reverse(*at)));
    let mut by_size = by_size.into_iter();
    // The last one is not given up here: without it nothing is left.
    while by_size.len() > 1
        && let Some((all, at)) = by_size.next()
    {
        let mut own = 0;
        if let Some(held) = answer.get_mut(at) {
            own = value(Some(held));
            *held = Err(Damaged);
        }
        for held in said.iter_mut().filter_map(|(_, records)| records.get_mut(at)) {
            *held = Err(Damaged);
        }
        given_up.insert(at);
        left -= own;
        paid.keep(paid.bytes().saturating_sub(all - own));
        if paid.pay_if_left(budget, left) {
            return true;
        }
    }
    false
}

/// Makes a page short enough to be paid for: leaves half of it, and again, and of the others, which are paid for
/// already, as much as it reaches. Says whether that could be done with an entry left. Cost: a look at all entries.
pub(super) fn shorten(
    budget: &Budget,
    paid: &mut Paid,
    said: &mut [(usize, Page)],
    page: &mut Page,
    reverse: bool,
) -> bool {
    let bytes = |entries: &[PageEntry]| -> usize {
        let one = |entry: &PageEntry| entry.position.as_bytes().len() + entry.told.head().value.len();
        size_of::<peer::Entry>() * entries.len() + entries.iter().map(one).sum::<usize>()
    };
    while page.entries.len() > 1 {
        page.entries.truncate(page.entries.len() / 2);
        page.more = true;
        let Some(last) = page.entries.last() else { return false };
        let mut freed = 0;
        for (_, other) in said.iter_mut() {
            let is_covered = |entry: &PageEntry| match reverse {
                true => entry.position >= last.position,
                false => entry.position <= last.position,
            };
            let kept = other.entries.partition_point(is_covered);
            let gone = other.entries.split_off(kept);
            freed += bytes(&gone);
            // It says all up to where the shorter one ends, and nobody looks further.
            other.more &= gone.is_empty();
        }
        paid.keep(paid.bytes().saturating_sub(freed));
        if paid.pay_if_left(budget, bytes(&page.entries)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use god_proto::{ids::NodeId, record::Record, version::Version};

    fn of(bytes: usize) -> Held<Told> {
        Ok(Some(Told::Whole(Record::value(Version::new(1, 0, NodeId(1)), vec![7; bytes]))))
    }

    #[test]
    fn no_more_is_given_up_where_what_others_gave_up_is_enough() {
        let budget = Budget::new(10_000);
        // The one that may go beyond what there is is another one, and 3,000 are left.
        let mut other = budget.new_charge();
        assert!(other.insist(20_000));
        other.shrink(13_000);
        let mut paid = Paid::default();
        let mut given_up = BTreeSet::from([0]);
        let mut answer = vec![of(4_000), of(1_000), of(10)];
        assert!(fit(&budget, &mut paid, &mut [], &mut answer, &mut given_up));
        assert_eq!(given_up, BTreeSet::from([0]));
        assert!(matches!(answer[..], [Err(Damaged), Ok(Some(_)), Ok(Some(_))]));
        // Else the largest go, but for the last.
        let mut answer = vec![of(4_000), of(3_500), of(10)];
        assert!(fit(&budget, &mut Paid::default(), &mut [], &mut answer, &mut BTreeSet::new()));
        assert!(matches!(answer[..], [Err(Damaged), Err(Damaged), Ok(Some(_))]));
    }
}
