//! Single-decree Paxos without I/O: what an acceptor may say, and what a proposer must propose.
//!
//! After Lamport, *Paxos Made Simple* (2001), section 2.2. Whoever keeps an [`Acceptor`] makes its state durable before
//! it lets an answer out (invariant EPOCH-DECIDED-ONCE).

/// The number of an attempt: ordered, and distinct for distinct proposers. One proposer's may repeat (see
/// [`Acceptor::prepare`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows with each attempt.
    pub round: u64,
    /// Who attempts.
    pub node: u32,
}

/// What an acceptor remembers of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptor<V> {
    promised: Ballot,
    accepted: Option<(Ballot, V)>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Ballot::default(), accepted: None }
    }
}

/// An acceptor's answer to a prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise<V> {
    /// It will accept nothing of a lower ballot, and has accepted this so far.
    Granted(Option<(Ballot, V)>),
    /// It has promised this ballot, which is as high or higher.
    Refused(Ballot),
}

impl<V: Clone> Acceptor<V> {
    /// An acceptor as it was kept.
    pub fn restore(promised: Ballot, accepted: Option<(Ballot, V)>) -> Acceptor<V> {
        Acceptor { promised, accepted }
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What was accepted last.
    pub fn accepted(&self) -> Option<&(Ballot, V)> {
        self.accepted.as_ref()
    }

    /// Phase 1b. Grants a ballot once: a proposer that forgot its attempts, or makes two at a time, may use a number
    /// again, and whoever gets a majority for it must be the only one to propose under it.
    pub fn prepare(&mut self, ballot: Ballot) -> Promise<V> {
        if ballot <= self.promised {
            return Promise::Refused(self.promised);
        }
        self.promised = ballot;
        Promise::Granted(self.accepted.clone())
    }

    /// Phase 2b: whether the value was accepted.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> bool {
        if ballot < self.promised {
            return false;
        }
        self.promised = ballot;
        self.accepted = Some((ballot, value));
        true
    }
}

/// Phase 2a: what must be proposed, given what a majority of acceptors said they had accepted. A value that may have
/// been chosen is among them, under the highest ballot.
pub fn must_propose<V>(promises: Vec<Option<(Ballot, V)>>, own: V) -> V {
    promises.into_iter().flatten().max_by_key(|(ballot, _)| *ballot).map_or(own, |(_, value)| value)
}

/// How many of so many acceptors are a majority.
pub fn majority(acceptors: usize) -> usize {
    acceptors / 2 + 1
}
