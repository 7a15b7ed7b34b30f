//! What is done to a cluster, to whom and when. It follows from the seed alone: the same seed is the same plan, though
//! not the same outcome.

use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::{fmt, time::Duration};

/// A node, from 0.
pub type Node = usize;

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// kill -9, and started again
    Kill,
    /// kill -9 of all nodes at once, and started again
    KillAll,
    /// SIGTERM, and started again
    Stop,
    /// SIGSTOP, and SIGCONT
    Freeze,
    /// The disk full to its last byte, and room again
    Disk,
    /// The wall clock stepped ahead or back, and right again
    Clock,
    /// The link of a node down: nobody reaches it
    Cut,
    /// Two nodes that do not reach each other, while all others reach both
    Part,
    /// What a node sends another one is lost; what it is sent arrives
    OneWay,
    /// Clients that ask for much and read nothing
    Unread,
    /// 3,000 connections at each door that say nothing
    Silent,
}

impl Kind {
    /// All that a run has, unless it is told to have others.
    pub fn all() -> Vec<Kind> {
        Kind::value_variants().to_vec()
    }
}

/// One trouble, and who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`Kind::Kill`].
    Kill(Node),
    /// See [`Kind::KillAll`].
    KillAll,
    /// See [`Kind::Stop`].
    Stop(Node),
    /// See [`Kind::Freeze`].
    Freeze(Node),
    /// See [`Kind::Disk`].
    Disk(Node),
    /// The node, and how many milliseconds its clock is ahead of the others' meanwhile.
    Clock(Node, i64),
    /// See [`Kind::Cut`].
    Cut(Node),
    /// See [`Kind::Part`].
    Part(Node, Node),
    /// Who sends, and who does not get it.
    OneWay(Node, Node),
    /// See [`Kind::Unread`].
    Unread(Node),
    /// See [`Kind::Silent`].
    Silent(Node),
}

/// Steps of a clock, in milliseconds: within what nodes bear, beyond it, and far beyond.
const STEPS: [i64; 10] = [200, -200, 450, -450, 2_000, -2_000, 60_000, -60_000, 3_600_000, -3_600_000];

impl Fault {
    fn draw(kind: Kind, nodes: &[Node], chance: &mut SmallRng) -> Option<Fault> {
        let (first, second) = (*nodes.first()?, nodes.get(1).copied());
        Some(match kind {
            Kind::Kill => Fault::Kill(first),
            Kind::KillAll => Fault::KillAll,
            Kind::Stop => Fault::Stop(first),
            Kind::Freeze => Fault::Freeze(first),
            Kind::Disk => Fault::Disk(first),
            Kind::Clock => Fault::Clock(first, STEPS[chance.random_range(0..STEPS.len())]),
            Kind::Cut => Fault::Cut(first),
            Kind::Part => Fault::Part(first, second?),
            Kind::OneWay => Fault::OneWay(first, second?),
            Kind::Unread => Fault::Unread(first),
            Kind::Silent => Fault::Silent(first),
        })
    }

    /// Nodes that have it.
    fn nodes(self, all: usize) -> Vec<Node> {
        match self {
            Fault::KillAll => (0..all).collect(),
            Fault::Part(one, other) | Fault::OneWay(one, other) => vec![one, other],
            Fault::Kill(node)
            | Fault::Stop(node)
            | Fault::Freeze(node)
            | Fault::Disk(node)
            | Fault::Clock(node, _)
            | Fault::Cut(node)
            | Fault::Unread(node)
            | Fault::Silent(node) => vec![node],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(node) => write!(f, "node {} is killed", node + 1),
            Fault::KillAll => write!(f, "all nodes are killed"),
            Fault::Stop(node) => write!(f, "node {} is told to stop", node + 1),
            Fault::Freeze(node) => write!(f, "node {} is frozen", node + 1),
            Fault::Disk(node) => write!(f, "the disk of node {} is full", node + 1),
            Fault::Clock(node, ms) => {
                let (seconds, side) = (ms.abs() as f64 / 1e3, if *ms < 0 { "behind" } else { "ahead" });
                write!(f, "the clock of node {} is {seconds} s {side}", node + 1)
            }
            Fault::Cut(node) => write!(f, "node {} is cut off", node + 1),
            Fault::Part(one, other) => {
                write!(f, "nodes {} and {} do not reach each other", one + 1, other + 1)
            }
            Fault::OneWay(from, to) => {
                write!(f, "what node {} sends node {} is lost", from + 1, to + 1)
            }
            Fault::Unread(node) => write!(f, "clients of node {} do not read", node + 1),
            Fault::Silent(node) => write!(f, "silent connections at each door of node {}", node + 1),
        }
    }
}

/// A fault, and when it begins and ends, counted from the beginning of its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub fault: Fault,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        write!(f, "{from:5.2} s – {until:5.2} s  {}", self.fault)
    }
}

/// All rounds of a seed.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// What it follows from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// What may happen.
    pub kinds: Vec<Kind>,
}

/// Where the numbers for the order of the kinds come from, apart from those for the rounds.
const ORDER: u64 = 0x6f72_6465_7200_0000;

impl FaultPlan {
    /// What happens in a round, from 0. So many rounds in a row as there are kinds have each kind once. In half of the
    /// rounds something else befalls other nodes meanwhile. Never are two clocks wrong at a time: what most clocks say
    /// is the time.
    pub fn round(&self, number: u64) -> Vec<Trouble> {
        let kinds = self.kinds.len() as u64;
        let Some(turn) = number.checked_div(kinds) else { return Vec::new() };
        let mut deck = self.kinds.clone();
        deck.shuffle(&mut self.chance(ORDER ^ turn));
        let mut chance = self.chance(number);
        let mut nodes: Vec<Node> = (0..self.nodes).collect();
        nodes.shuffle(&mut chance);
        let main = deck[(number % kinds) as usize];
        let Some(fault) = Fault::draw(main, &nodes, &mut chance) else { return Vec::new() };
        let mut troubles = vec![FaultPlan::time(fault, &mut chance)];
        if chance.random_bool(0.5) {
            let taken = fault.nodes(self.nodes);
            nodes.retain(|node| !taken.contains(node));
            let other = self.kinds[chance.random_range(0..self.kinds.len())];
            let may = other != Kind::KillAll && (main, other) != (Kind::Clock, Kind::Clock);
            let fault = Fault::draw(other, &nodes, &mut chance).filter(|_| may);
            troubles.extend(fault.map(|fault| FaultPlan::time(fault, &mut chance)));
        }
        troubles
    }

    fn time(fault: Fault, chance: &mut SmallRng) -> Trouble {
        let from = Duration::from_millis(chance.random_range(0..3_000));
        Trouble { fault, from, until: from + Duration::from_millis(chance.random_range(2_000..8_000)) }
    }

    fn chance(&self, salt: u64) -> SmallRng {
        // Seeds and rounds that lie side by side must not draw alike.
        SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.rotate_left(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> FaultPlan {
        FaultPlan { seed, nodes: 5, kinds: Kind::all() }
    }

    fn rounds(plan: &FaultPlan, count: u64) -> Vec<Vec<Trouble>> {
        (0..count).map(|number| plan.round(number)).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_another() {
        assert_eq!(rounds(&plan(7), 50), rounds(&plan(7), 50));
        assert_ne!(rounds(&plan(7), 50), rounds(&plan(8), 50));
    }

    #[test]
    fn each_kind_comes_once_in_as_many_rounds_as_there_are_kinds() {
        let kinds = Kind::all().len() as u64;
        for seed in 0..50 {
            let plan = plan(seed);
            for turn in 0..3 {
                let main = (turn * kinds..(turn + 1) * kinds).map(|number| plan.round(number)[0].fault);
                let mut seen: Vec<_> = main.map(|fault| std::mem::discriminant(&fault)).collect();
                seen.dedup();
                let distinct: std::collections::HashSet<_> = seen.iter().collect();
                assert_eq!(distinct.len() as u64, kinds, "seed {seed}, turn {turn}");
            }
        }
    }

    #[test]
    fn troubles_of_a_round_befall_different_nodes_and_one_clock_at_most() {
        for seed in 0..200 {
            for troubles in rounds(&plan(seed), 30) {
                let mut nodes: Vec<Node> = troubles.iter().flat_map(|it| it.fault.nodes(5)).collect();
                let all = nodes.len();
                nodes.sort_unstable();
                nodes.dedup();
                assert_eq!(nodes.len(), all, "{troubles:?}");
                assert!(nodes.iter().all(|node| *node < 5));
                let clocks = troubles.iter().filter(|it| matches!(it.fault, Fault::Clock(..))).count();
                assert!(clocks <= 1, "{troubles:?}");
                assert!(troubles.iter().all(|it| it.from < it.until));
            }
        }
    }

    #[test]
    fn a_plan_of_one_kind_has_no_other() {
        let plan = FaultPlan { kinds: vec![Kind::Freeze], ..plan(3) };
        let all: Vec<Trouble> = rounds(&plan, 20).into_iter().flatten().collect();
        assert!(all.len() >= 20 && all.iter().all(|it| matches!(it.fault, Fault::Freeze(_))));
    }
}
