//! One number of bytes for everything that requests hold: what is decoded, under way, and waiting to be sent.
//!
//! BUDGET: what can be refused is taken from the budget before it is done, and refused as busy where there is not
//! enough left. What must be done all the same (answers of what was begun, and what nodes need to stay one cluster) is
//! counted, so that it keeps others out. What replicas say cannot be known before they say it: it is paid for when it
//! comes, and dropped where there is not enough left. One request at a time may go beyond what there is, so that there
//! is always one that gets to its end.

mod measure;

pub(crate) use measure::{Method, method, parts};

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// What one element of a repeated field takes when it is decoded, in bytes, beside its own content: the largest of
/// them, and what a growing list keeps free.
pub(crate) const PART: usize = 512;

/// Why something is refused that there is not enough left for, as a sentence that may go on.
pub(crate) const NO_MEMORY: &str = "the node's memory for requests is taken up";

/// Answers of replicas up to so many bytes are paid with the call that asked for them.
pub(crate) const SMALL: usize = 1 << 10;

/// The budget of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Inner>,
    /// So much of it may be taken by whoever has this one.
    limit: u64,
}

struct Inner {
    limit: u64,
    used: AtomicU64,
    most: AtomicU64,
    /// Whether a charge has gone beyond the limit.
    beyond: AtomicBool,
    refused: Counter,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.used.load(Relaxed), self.limit)
    }
}

impl Default for Budget {
    /// As large as a node's is by default.
    fn default() -> Budget {
        Budget::new(256 << 20)
    }
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: u64) -> Budget {
        let (refused, beyond) = (counter!("god_budget_refused_total"), AtomicBool::new(false));
        let inner =
            Arc::new(Inner { limit, used: AtomicU64::new(0), most: AtomicU64::new(0), beyond, refused });
        Budget { shared: inner, limit }
    }

    /// The same one, of which an eighth is left to others: clients that take all of this do not keep a node from
    /// answering the others of its cluster.
    #[must_use]
    pub fn for_clients(&self) -> Budget {
        Budget { shared: Arc::clone(&self.shared), limit: self.shared.limit - self.shared.limit / 8 }
    }

    /// A charge of nothing, to grow.
    pub fn new_charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0, beyond: false }
    }

    /// Takes bytes, if so many are left.
    pub fn take(&self, bytes: usize) -> Option<Charge> {
        let mut charge = self.new_charge();
        charge.grow(bytes).then_some(charge)
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.shared.used.load(Relaxed) >= self.limit
    }

    /// All of its bytes that may be taken.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Relaxed)
    }

    /// The most that was taken at a time.
    pub fn most(&self) -> u64 {
        self.shared.most.load(Relaxed)
    }

    /// Counts something that was refused for want of bytes.
    pub fn refused(&self) {
        self.shared.refused.increment(1);
    }

    /// Shows it among the metrics.
    pub fn show(&self) {
        gauge!("god_budget_used_bytes").set(self.used() as f64);
        gauge!("god_budget_most_bytes").set(self.most() as f64);
        gauge!("god_budget_limit_bytes").set(self.shared.limit as f64);
    }
}

/// Bytes that are taken until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
    /// It is the one that may go beyond the limit.
    beyond: bool,
}

impl Charge {
    /// Takes more, if so many are left; says whether it did.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Inner { used, most, .. } = &*self.budget.shared;
        let (bytes, limit) = (bytes as u64, self.budget.limit);
        let fits = |now: u64| now.checked_add(bytes).filter(|then| *then <= limit);
        let Ok(before) = used.fetch_update(Relaxed, Relaxed, fits) else { return false };
        most.fetch_max(before + bytes, Relaxed);
        self.bytes += bytes;
        true
    }

    /// Takes more, whether so many are left or not.
    pub fn force(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let before = self.budget.shared.used.fetch_add(bytes, Relaxed);
        self.budget.shared.most.fetch_max(before + bytes, Relaxed);
        self.bytes += bytes;
    }

    /// Takes more, if so many are left, or if no other one has gone beyond what there is: this one may then, until it
    /// gives all back. Says whether it did. For what ends by a deadline, and has a bound of its own.
    pub fn insist(&mut self, bytes: usize) -> bool {
        if !self.beyond {
            if self.grow(bytes) {
                return true;
            }
            let Inner { used, beyond, .. } = &*self.budget.shared;
            // What went beyond may be held by others by now: nobody begins beyond the limit.
            if used.load(Relaxed) > self.budget.limit || beyond.swap(true, Relaxed) {
                return false;
            }
            self.beyond = true;
        }
        self.force(bytes);
        true
    }

    /// Takes over what another one has taken.
    pub fn absorb(&mut self, mut other: Charge) {
        assert!(Arc::ptr_eq(&self.budget.shared, &other.budget.shared), "BUDGET: of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
        self.beyond |= std::mem::take(&mut other.beyond);
    }

    /// A charge of its own for some of them. It is not the one that may go beyond.
    #[must_use]
    pub fn split_off(&mut self, bytes: usize) -> Charge {
        let bytes = (bytes as u64).min(self.bytes);
        self.bytes -= bytes;
        Charge { budget: self.budget.clone(), bytes, beyond: false }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Gives some back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.budget.shared.used.fetch_sub(bytes, Relaxed);
        self.bytes -= bytes;
    }

    /// Gives all back.
    pub fn clear(&mut self) {
        self.budget.shared.used.fetch_sub(self.bytes, Relaxed);
        self.bytes = 0;
        if std::mem::take(&mut self.beyond) {
            self.budget.shared.beyond.store(false, Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is paid for answers of replicas, as long as they are held. Small ones cost nothing here, nor does it to have
/// none.
#[derive(Debug, Default)]
pub struct Paid {
    charge: Option<Charge>,
    /// So much of it is for what is yet to come.
    ahead: usize,
}

impl Paid {
    /// Pays for an answer of so many bytes. `false`: there is not enough left, and it is to be dropped.
    pub fn pay(&mut self, budget: &Budget, bytes: usize) -> bool {
        let is_paid = self.pay_if_left(budget, bytes);
        if !is_paid {
            budget.refused();
        }
        is_paid
    }

    /// The same, where nothing is refused for it yet: fewer bytes may do.
    pub fn pay_if_left(&mut self, budget: &Budget, bytes: usize) -> bool {
        let (due, ahead) = (bytes.saturating_sub(self.ahead), self.ahead.saturating_sub(bytes));
        let is_paid = due <= SMALL || self.charge.get_or_insert_with(|| budget.new_charge()).insist(due);
        if is_paid {
            self.ahead = ahead;
        }
        is_paid
    }

    /// Pays for so many bytes of an answer that is yet to come.
    pub fn pay_ahead(&mut self, budget: &Budget, bytes: usize) -> bool {
        let ahead = std::mem::take(&mut self.ahead);
        let is_paid = self.pay(budget, bytes);
        self.ahead = ahead + if is_paid && bytes > SMALL { bytes } else { 0 };
        is_paid
    }

    /// Gives back what was paid for so many bytes that will not come.
    pub fn forgo(&mut self, bytes: usize) {
        let back = bytes.min(self.ahead);
        self.ahead -= back;
        if let Some(charge) = &mut self.charge {
            charge.shrink(back);
        }
    }

    /// Sets apart what was paid for so many bytes that are yet to come.
    #[must_use]
    pub fn split_ahead(&mut self, bytes: usize) -> Paid {
        let ahead = bytes.min(self.ahead);
        self.ahead -= ahead;
        Paid { charge: self.charge.as_mut().map(|charge| charge.split_off(ahead)), ahead }
    }

    /// Gives back what goes beyond so many bytes, once all has come: the others were dropped.
    pub fn keep(&mut self, bytes: usize) {
        self.ahead = 0;
        match &mut self.charge {
            Some(charge) if bytes > 0 => charge.shrink(charge.bytes().saturating_sub(bytes)),
            paid => *paid = None,
        }
    }

    /// Bytes that are paid for.
    pub fn bytes(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    /// Takes over what another one pays for.
    pub fn absorb(&mut self, other: Paid) {
        self.ahead += other.ahead;
        match (&mut self.charge, other.charge) {
            (Some(charge), Some(other)) => charge.absorb(other),
            (paid @ None, other) => *paid = other,
            (Some(_), None) => {}
        }
    }
}

/// Says what this room counts.
pub(crate) fn describe() {
    describe_gauge!(
        "god_budget_used_bytes",
        "Bytes that requests hold: decoded, under way, or waiting to be sent"
    );
    describe_gauge!("god_budget_most_bytes", "The most that requests held at a time since the start");
    describe_gauge!("god_budget_limit_bytes", "What requests may hold (request-memory)");
    describe_counter!(
        "god_budget_refused_total",
        "Requests that were refused for want of memory for requests"
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_never_more_is_taken_than_there_is() {
        let budget = Budget::new(100);
        let mut first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        assert!(!first.grow(41) && first.grow(40));
        assert!(budget.is_spent());
        first.force(50);
        assert_eq!(budget.used(), 150);
        first.shrink(70);
        let second = budget.take(20).unwrap();
        first.absorb(second);
        assert_eq!((first.bytes(), budget.used()), (100, 100));
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(usize::MAX).is_none());
    }

    #[test]
    fn clients_leave_a_part_to_others() {
        let budget = Budget::new(800);
        let clients = budget.for_clients();
        let mut taken = clients.take(700).unwrap();
        assert!(clients.is_spent() && !taken.grow(1) && !budget.is_spent());
        let others = budget.take(100).unwrap();
        assert!(budget.is_spent() && budget.take(1).is_none());
        drop((taken, others));
        assert_eq!((budget.used(), clients.used(), clients.limit()), (0, 0, 700));
    }

    #[test]
    fn one_at_a_time_goes_beyond_what_there_is_until_it_gives_all_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.take(60).unwrap(), budget.new_charge());
        assert!(second.insist(40) && second.insist(50) && second.insist(1));
        assert!(!first.insist(1));
        // Whoever takes it over has that too.
        let mut third = budget.new_charge();
        third.absorb(second);
        assert!(third.insist(9) && !first.insist(1));
        assert_eq!((third.bytes(), budget.used()), (100, 160));
        third.clear();
        assert!(first.insist(100) && !third.insist(1));
    }

    #[test]
    fn nobody_begins_beyond_what_there_is_though_nobody_holds_the_right_to_it() {
        let budget = Budget::new(100);
        let mut answers = budget.new_charge();
        let mut reads = 0;
        // What was read becomes an answer that waits, and is counted whatever is left.
        while budget.new_charge().insist(40) {
            answers.force(40);
            reads += 1;
            assert!(reads < 100, "it never ends");
        }
        assert_eq!(answers.bytes(), 120);
        answers.clear();
        assert!(budget.new_charge().insist(400), "one alone gets on");
    }

    #[test]
    fn what_is_paid_for_answers_is_what_is_held_of_them() {
        let budget = Budget::new(1 << 20);
        let mut paid = Paid::default();
        assert!(paid.pay(&budget, SMALL) && paid.charge.is_none());
        assert!(paid.pay(&budget, 300 << 10) && paid.pay(&budget, 300 << 10));
        let mut more = Paid::default();
        assert!(more.pay(&budget, 100 << 10));
        paid.absorb(more);
        assert_eq!(budget.used(), 700 << 10);
        paid.keep(200 << 10);
        assert_eq!((paid.bytes() as u64, budget.used()), (200 << 10, 200 << 10));
        paid.keep(300 << 10);
        assert_eq!(budget.used(), 200 << 10);
        paid.keep(0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_was_paid_ahead_is_not_paid_again_when_it_comes() {
        let budget = Budget::new(1 << 20);
        let mut paid = Paid::default();
        assert!(paid.pay_ahead(&budget, 300 << 10) && paid.pay_ahead(&budget, 100 << 10));
        assert_eq!(budget.used(), 400 << 10);
        assert!(paid.pay(&budget, 350 << 10) && paid.pay(&budget, 60 << 10));
        assert_eq!(budget.used(), 410 << 10);
        // What did not come is given back.
        paid.keep(10 << 10);
        assert!(paid.pay(&budget, 20 << 10));
        assert_eq!(budget.used(), 30 << 10);
        // Where there is not enough left it is not there later either; what others pay for ahead is theirs.
        let mut beyond = budget.new_charge();
        assert!(beyond.insist(2 << 20));
        beyond.shrink((2 << 20) - 1);
        let mut more = Paid::default();
        assert!(more.pay_ahead(&budget, 100 << 10) && !more.pay_ahead(&budget, 1 << 20));
        paid.absorb(more);
        paid.forgo(40 << 10);
        assert_eq!(paid.bytes(), 90 << 10);
        assert!(paid.pay(&budget, 60 << 10));
        assert_eq!(paid.bytes(), 90 << 10);
        paid.forgo(10 << 10);
        assert_eq!(paid.bytes(), 90 << 10, "all has come");
    }
}
