//! The ring, as far as its nodes told.

use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What is known of the ring. There is no third case: an error, an empty list or silence is `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RingView {
    /// Nobody told, for this reason. Nothing follows from that.
    Unknown(String),
    /// A node told all of it.
    Known(Box<Ring>),
}

/// A decided ring, and what its members say of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    /// Its cluster.
    pub cluster: Uuid,
    /// Its epoch.
    pub epoch: u64,
    /// Members by UUID.
    pub members: BTreeMap<Uuid, RingMember>,
    /// Nodes that left for good.
    pub retired: BTreeSet<Uuid>,
    /// Numbers of those who decide the next epoch.
    pub voters: BTreeSet<u32>,
    /// Keyspaces.
    pub keyspaces: Vec<RingKeyspace>,
    /// Arcs.
    pub arcs: Vec<RingArc>,
    /// Operations, in their order.
    pub operations: Vec<Operation>,
    /// The latest operations that have ended, the oldest first.
    pub ended: Vec<Ended>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RingMember {
    /// Never given twice within a cluster.
    pub number: u32,
    /// Its zone.
    pub zone: String,
    /// Its weight, in thousandths.
    pub weight: u32,
    /// It hands its arcs over.
    pub leaving: bool,
    /// Version of its program.
    pub version: String,
    /// How the others find it.
    pub state: MemberHealth,
    /// What it says of itself, where it answered.
    pub report: Option<Report>,
}

/// How the others find a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemberHealth {
    /// It answers and is ready.
    Up,
    /// It answers and is not ready.
    Unready,
    /// It does not answer, since just now.
    #[default]
    Suspect,
    /// It does not answer.
    Down,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// Of the ring that it knows.
    pub epoch: u64,
    /// Bytes that it stores.
    pub bytes: u64,
    /// Bytes free on its disk.
    pub disk_free: u64,
    /// Writes that it keeps for others.
    pub hints: u64,
    /// Arcs that must be compared before they count as equal, or before they answer for reads again.
    pub suspect_arcs: u32,
    /// Entries that it stores and should not.
    pub misplaced: u64,
    /// Why it is not ready.
    pub reasons: Vec<String>,
}

/// A keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingKeyspace {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// N, W and R.
    pub copies: Copies,
    /// It has, or may have, data.
    pub live: bool,
    /// Its keys are in the order of their bytes.
    pub ordered: bool,
}

/// N, W and R.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copies {
    /// N.
    pub replicas: u32,
    /// W.
    pub write_quorum: u32,
    /// R.
    pub read_quorum: u32,
}

impl Copies {
    /// Copies that must be up for reads and writes to go on.
    pub fn needed(self) -> u32 {
        self.write_quorum.max(self.read_quorum)
    }
}

/// An arc.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingArc {
    /// Number of its keyspace.
    pub keyspace: u32,
    /// Numbers of those who hold it.
    pub replicas: Vec<u32>,
    /// Numbers of those who are to hold it, while it changes hands.
    pub next: Option<Vec<u32>>,
}

/// What is asked of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// A member takes its part.
    Join(u32),
    /// A member gives all that it has, and is retired.
    Leave {
        /// Which one.
        node: u32,
        /// Its data are gone: nobody waits for it.
        lost: bool,
    },
    /// A member takes all that another one has, which is retired.
    Replace {
        /// Who is retired.
        old: u32,
        /// Who takes it.
        new: u32,
        /// The old one's data are gone.
        lost: bool,
    },
    /// Another weight, in thousandths.
    Reweight(u32, u32),
    /// Another zone.
    Rezone(u32, String),
    /// N, W and R of a keyspace.
    Replicas(u32, Copies),
    /// What grew uneven is made even.
    Rebalance,
}

impl Wish {
    /// Numbers of the nodes that it is about.
    pub fn nodes(&self) -> Vec<u32> {
        match self {
            Wish::Join(node) | Wish::Leave { node, .. } | Wish::Reweight(node, _) | Wish::Rezone(node, _) => {
                vec![*node]
            }
            Wish::Replace { old, new, .. } => vec![*old, *new],
            Wish::Replicas(..) | Wish::Rebalance => vec![],
        }
    }

    /// Whether it makes up for lost data.
    pub fn is_for_lost(&self) -> bool {
        matches!(self, Wish::Leave { lost: true, .. } | Wish::Replace { lost: true, .. })
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Wish::Join(node) => format!("node {node} takes its part"),
            Wish::Leave { node, lost: false } => format!("node {node} leaves"),
            Wish::Leave { node, lost: true } => format!("others make up for the lost data of node {node}"),
            Wish::Replace { old, new, .. } => format!("node {new} replaces node {old}"),
            Wish::Reweight(node, weight) => {
                format!("node {node} gets weight {}", f64::from(*weight) / 1_000.0)
            }
            Wish::Rezone(node, zone) => format!("node {node} moves to zone {zone:?}"),
            Wish::Replicas(keyspace, copies) => {
                format!("keyspace {keyspace} gets {} copies", copies.replicas)
            }
            Wish::Rebalance => "uneven data are made even".to_owned(),
        }
    }
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What it does.
    pub wish: Wish,
    /// How far it is.
    pub phase: OperationPhase,
    /// In figures.
    pub progress: Progress,
    /// Why it does not go on; empty where it does.
    pub blocked: String,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationPhase {
    /// Others come first.
    Waiting,
    /// Arcs change hands.
    Moving,
    /// Who leaves hands over what it has left.
    Cleaning,
    /// What was moved goes back.
    Cancelling,
}

/// An operation in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Arcs that are where they should be.
    pub arcs_done: u32,
    /// Of so many.
    pub arcs_total: u32,
    /// Bytes copied of arcs that change hands.
    pub bytes_done: u64,
    /// Of so many.
    pub bytes_total: u64,
    /// What the rest takes; 0: not known.
    pub eta_ms: u64,
}

/// An operation that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ended {
    /// Its id.
    pub id: String,
    /// It was undone.
    pub cancelled: bool,
    /// Why it was not carried out; else empty.
    pub refused: String,
    /// The epoch in which it ended.
    pub epoch: u64,
}

impl Ring {
    /// A member by number.
    pub fn numbered(&self, number: u32) -> Option<(Uuid, &RingMember)> {
        self.members.iter().find(|(_, member)| member.number == number).map(|(uuid, member)| (*uuid, member))
    }

    /// Whether a majority of the members know this ring, or a newer one.
    pub fn is_acknowledged(&self) -> bool {
        let knows =
            |member: &&RingMember| member.report.as_ref().is_some_and(|report| report.epoch >= self.epoch);
        self.members.values().filter(knows).count() * 2 > self.members.len()
    }

    /// Whether no member knows a newer ring.
    pub fn is_newest(&self) -> bool {
        self.members
            .values()
            .filter_map(|member| member.report.as_ref())
            .all(|report| report.epoch <= self.epoch)
    }

    /// A keyspace by number.
    pub fn keyspace(&self, id: u32) -> Option<&RingKeyspace> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == id)
    }

    /// Arcs of live keyspaces that a member holds or is to hold.
    pub fn arcs_of(&self, number: u32) -> usize {
        let is_live = |arc: &&RingArc| self.keyspace(arc.keyspace).is_some_and(|keyspace| keyspace.live);
        let holds =
            |arc: &&RingArc| arc.replicas.iter().chain(arc.next.iter().flatten()).any(|it| *it == number);
        self.arcs.iter().filter(is_live).filter(holds).count()
    }

    /// Whether any keyspace has, or may have, data.
    pub fn has_data(&self) -> bool {
        self.keyspaces.iter().any(|keyspace| keyspace.live)
    }

    /// The most copies that a keyspace has.
    pub fn most_copies(&self) -> u32 {
        self.keyspaces.iter().map(|keyspace| keyspace.copies.replicas).max().unwrap_or(1)
    }

    /// Arcs that would be without a quorum if only these members were up.
    pub fn arcs_without_quorum(&self, is_up: impl Fn(u32) -> bool) -> usize {
        let lacks = |arc: &&RingArc| {
            let copies = self.keyspace(arc.keyspace).map(|keyspace| keyspace.copies).unwrap_or_default();
            std::iter::once(&arc.replicas).chain(&arc.next).any(|set| {
                // An arc of a cluster smaller than N needs at most as many as it has.
                let needed = copies.needed().min(set.len() as u32);
                (set.iter().filter(|node| is_up(**node)).count() as u32) < needed
            })
        };
        self.arcs.iter().filter(lacks).count()
    }

    /// Whether the voters could still decide if only these members were up.
    pub fn decides(&self, is_up: impl Fn(u32) -> bool) -> bool {
        self.voters.iter().filter(|voter| is_up(**voter)).count() * 2 > self.voters.len()
    }

    /// The next id for an operation: the base with a count, so that one that was undone or is done may be asked for
    /// again, and one that is under way may not.
    pub fn operation_id(&self, base: &str) -> String {
        let attempt = |id: &str| id.strip_prefix(base)?.strip_prefix('.')?.parse::<u32>().ok();
        let last = self.ended.iter().filter_map(|ended| attempt(&ended.id)).max().unwrap_or(0);
        format!("{base}.{}", last.saturating_add(1))
    }

    /// Ended operations of a base.
    pub fn ended(&self, base: &str) -> impl Iterator<Item = &Ended> {
        let base = format!("{base}.");
        self.ended.iter().filter(move |ended| ended.id.starts_with(&base))
    }
}
