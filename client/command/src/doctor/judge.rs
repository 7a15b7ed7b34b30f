//! What is made of what was seen: findings, each with what to do. No I/O.

use super::observe::{Examined, Http};
use crate::{
    figures::{CLOCK_BAD_US, CLOCK_LOOK_US, bytes, counted, offset_us},
    operation::words,
    status::context_id,
};
use god_proto::{
    MAX_AHEAD_MS,
    answer::STORAGE_FAILED,
    v1::{NodeReport, NodeStatus, StatusReply},
};
use std::collections::BTreeSet;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// To be known; nothing to do.
    Note,
    /// To be looked at before it becomes a problem.
    Warning,
    /// Something is refused, or will be with the next fault.
    Problem,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at, in one word, for programs.
    pub check: &'static str,
    pub place: String,
    pub what: String,
    /// What to do; empty where there is nothing.
    pub remedy: String,
}

/// Below so much free space a disk is nearly where writes are refused (64 MiB, unless a node is set otherwise).
const DISK_BAD: u64 = 256 << 20;
/// Below so much it is to be looked at, however little is stored.
const DISK_LOOK: u64 = 1 << 30;
/// Open files that a node should be permitted: connections of all doors, and RocksDB's files.
const FILES: f64 = 16_384.0;

/// All findings, the worst first.
pub fn judge(seen: &Examined) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    reach(seen, &mut all);
    versions(seen, &mut all);
    ring(seen, &mut all);
    quorums(seen, &mut all);
    operations(seen, &mut all);
    for node in &seen.status.nodes {
        if let Some(report) = &node.report {
            clock(node, report, &mut all);
            disk(node, report, &mut all);
            copies(seen, node, report, &mut all);
        }
    }
    for (node, http) in answering(seen) {
        process(node, http, &mut all);
    }
    departed(seen, &mut all);
    all.note("certificates", "every door", "none: doors are not encrypted yet, and ask nobody who is there")
        .to("keep strangers from all three ports (docs/OPERATIONS.md)");
    let Findings(mut all) = all;
    // Stable: within a severity as they were looked at.
    all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    all
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        place: &str,
        what: impl Into<String>,
    ) -> To<'_> {
        let (place, what) = (place.to_owned(), what.into());
        self.0.push(Finding { severity, check, place, what, remedy: String::new() });
        To(self.0.last_mut())
    }

    fn note(&mut self, check: &'static str, place: &str, what: impl Into<String>) -> To<'_> {
        self.add(Severity::Note, check, place, what)
    }

    fn warn(&mut self, check: &'static str, place: &str, what: impl Into<String>) -> To<'_> {
        self.add(Severity::Warning, check, place, what)
    }

    fn problem(&mut self, check: &'static str, place: &str, what: impl Into<String>) -> To<'_> {
        self.add(Severity::Problem, check, place, what)
    }
}

/// The finding that was just added.
struct To<'a>(Option<&'a mut Finding>);

impl To<'_> {
    /// What to do about it.
    fn to(self, remedy: impl Into<String>) {
        if let Some(finding) = self.0 {
            finding.remedy = remedy.into();
        }
    }
}

fn place(node: &NodeStatus) -> String {
    format!("node {} at {}", node.number, node.grpc_address)
}

fn is_up(node: &NodeStatus) -> bool {
    node.state == "up"
}

fn answering(seen: &Examined) -> impl Iterator<Item = (&NodeStatus, &Http)> {
    seen.status
        .nodes
        .iter()
        .zip(&seen.nodes)
        .filter_map(|(node, asked)| Some((node, asked.http.as_ref().ok()?)))
}

/// Whether each node answers here, and as a member of this cluster.
fn reach(seen: &Examined, all: &mut Findings) {
    for (node, asked) in seen.status.nodes.iter().zip(&seen.nodes) {
        let at = place(node);
        match &asked.own {
            Err(why) if node.state == "down" => {
                let new = format!("god ring change --replace {}:NEW --lost", node.number);
                all.warn("reach", &at, format!("it is down: {why}")).to(format!(
                    "start it; if its machine or disk is lost, start another one and then: {new}"
                ));
            }
            Err(why) => {
                all.warn("reach", &at, format!("other nodes reach it, and this machine does not: {why}"))
                    .to("look at what it advertises (god-node --print-config), at names and at firewalls");
            }
            Ok(own) if own.cluster != seen.status.cluster => {
                let other = context_id(&own.cluster);
                all.problem("reach", &at, format!("another cluster answers there: {other}"))
                    .to("look who has its address: two nodes, or two names, must not share one");
            }
            Ok(_) if node.state == "down" => {
                all.problem("reach", &at, "this machine reaches it, and other nodes do not")
                    .to(format!("look at port and firewall of its door for nodes, {}", node.peer_address));
            }
            Ok(_) if node.state == "suspect" => {
                all.warn("reach", &at, "other nodes are not sure that it is there")
                    .to("look at its load and at the network between nodes; run this again");
            }
            Ok(_) => {}
        }
        let reasons: BTreeSet<&String> =
            node.reasons.iter().chain(node.report.iter().flat_map(|report| &report.reasons)).collect();
        for reason in &reasons {
            all.problem("ready", &at, format!("it is not ready: {reason}"))
                .to("put that right; it goes on by itself");
        }
        if let (Ok(_), Err(why)) = (&asked.own, &asked.http) {
            let what = format!("its door for HTTP ({}) does not answer here: {why}", node.http_address);
            all.note("reach", &at, what).to("its clock and its open files are not looked at from here");
        }
    }
}

fn versions(seen: &Examined, all: &mut Findings) {
    let nodes = seen.status.nodes.iter().filter(|node| !node.version.is_empty());
    let versions: BTreeSet<&str> = nodes.map(|node| node.version.as_str()).collect();
    if versions.len() > 1 {
        let which = seen.status.nodes.iter().map(|node| format!("node {}: {}", node.number, node.version));
        all.warn(
            "versions",
            "the cluster",
            format!("versions differ: {}", which.collect::<Vec<_>>().join(", ")),
        )
        .to("end the rollout");
    } else if versions.first().is_some_and(|version| *version != seen.version) {
        let nodes = versions.first().copied().unwrap_or_default();
        all.note(
            "versions",
            "this machine",
            format!("god is version {}, all nodes are {nodes}", seen.version),
        );
    }
}

fn ring(seen: &Examined, all: &mut Findings) {
    let newest = seen.nodes.iter().filter_map(|node| Some(node.own.as_ref().ok()?.epoch));
    let newest = newest.chain([seen.status.epoch]).max().unwrap_or_default();
    for (node, asked) in seen.status.nodes.iter().zip(&seen.nodes) {
        if let Ok(own) = &asked.own
            && own.epoch < newest
            && own.cluster == seen.status.cluster
        {
            all.warn(
                "ring",
                &place(node),
                format!("it is at epoch {} of the ring, and {newest} is known", own.epoch),
            )
            .to("run this again: it asks for it within a second, unless it reaches no other node");
        }
    }
    let voters = Voters::of(&seen.status);
    if let Some((what, remedy)) = voters.undecided() {
        all.problem("voters", "the ring", what).to(remedy);
    } else if voters.up < voters.all {
        all.warn("voters", "the ring", format!("{} of {} voters are up", voters.up, voters.all))
            .to(voters.mending());
    }
    let zones: BTreeSet<&str> = seen.status.nodes.iter().map(|node| node.zone.as_str()).collect();
    for keyspace in &seen.ring.keyspaces {
        let at = format!("keyspace {}", keyspace.name);
        let members = seen.status.nodes.len();
        if (members as u64) < u64::from(keyspace.replicas) {
            all.warn(
                "copies",
                &at,
                format!("{} copies are asked for, of {}", keyspace.replicas, counted(members as u64, "node")),
            )
            .to("add nodes, or: god ring change --replicas");
        } else if zones.len() > 1 && (zones.len() as u64) < u64::from(keyspace.replicas) {
            all.note(
                "copies",
                &at,
                format!("{} copies in {} zones: some share one", keyspace.replicas, zones.len()),
            );
        }
    }
}

/// Who decides changes of the ring.
#[derive(Default)]
pub struct Voters {
    all: usize,
    /// How many answer, and can keep a vote.
    up: usize,
    /// How many did not answer just now, and are not known to be down.
    suspected: usize,
    /// Numbers of those that answer, and cannot keep a vote.
    failed: Vec<u32>,
    /// Numbers of those that are down.
    down: Vec<u32>,
    /// Numbers of nodes that decide nothing and are down: what they know of the ring counts in a recovery.
    others_down: Vec<u32>,
}

impl Voters {
    pub fn of(status: &StatusReply) -> Voters {
        let mut voters = Voters::default();
        for node in &status.nodes {
            // A node that leaves votes until another one takes its vote, and its state does not tell whether it is up.
            // Silent, it may be suspected alone: waiting for it for ever would be worse than to name it.
            let is_down = node.state == "down" || node.state == "leaving" && node.report.is_none();
            if !node.voter {
                voters.others_down.extend(is_down.then_some(node.number));
                continue;
            }
            voters.all += 1;
            match (node.state.as_str(), &node.report) {
                ("suspect", _) => voters.suspected += 1,
                _ if is_down => voters.down.push(node.number),
                (_, Some(report)) if keeps_no_vote(report) => voters.failed.push(node.number),
                _ => voters.up += 1,
            }
        }
        voters
    }

    /// Where too few can decide: what that means, and what to do.
    pub fn undecided(&self) -> Option<(String, String)> {
        let too_few = |voters: usize| voters * 2 <= self.all;
        too_few(self.up).then(|| {
            let what = format!("{} of {} voters are up: no change is decided", self.up, self.all);
            let mut steps = self.steps();
            // A person's word in the place of votes: not while those that are only suspected may be enough.
            if too_few(self.up + self.suspected) && !self.down.is_empty() {
                let all = self.down.iter().chain(&self.failed).chain(&self.others_down);
                let mut lost: Vec<u32> = all.copied().collect();
                lost.sort_unstable();
                // Refused while one of them answers, so that those whose storage failed are to be stopped before.
                let only = if self.failed.is_empty() { "if" } else { "only then, if" };
                steps.push(format!("{only} they never come back: god recover --lost {}", numbers(&lost)));
            }
            (what, steps.join("; "))
        })
    }

    /// What to do while enough of them can decide.
    fn mending(&self) -> String {
        let mut steps = self.steps();
        if !self.down.is_empty() || !self.failed.is_empty() {
            steps.push(
                "a voter that is away for 10 s gives its vote to a node that is up and has none".to_owned(),
            );
        }
        steps.join("; ")
    }

    /// How those come back that cannot decide.
    fn steps(&self) -> Vec<String> {
        let named = |nodes: &[u32]| match nodes.len() {
            1 => format!("node {}", numbers(nodes)),
            _ => format!("nodes {}", numbers(nodes)),
        };
        let mut steps = Vec::new();
        if self.suspected > 0 {
            let are = if self.suspected == 1 { "is" } else { "are" };
            steps.push(format!("{} {are} suspected: wait a moment", self.suspected));
        }
        if !self.failed.is_empty() {
            let failed = named(&self.failed);
            steps.push(format!("mend or stop {failed}: storage failed there (god status says why)"));
        }
        if !self.down.is_empty() {
            let them = if steps.is_empty() { "them".to_owned() } else { named(&self.down) };
            steps.push(format!("start {them}"));
        }
        steps
    }
}

/// Whether a node can keep no vote, so that it gives none: a promise is on disk before it is given. All else that keeps
/// a node from being ready leaves it its vote: votes need no clock, no block that is damaged, and no leave to use what
/// is kept in reserve of a disk; where that is spent too the write fails, and with it the storage.
fn keeps_no_vote(report: &NodeReport) -> bool {
    report.reasons.iter().any(|reason| reason.starts_with(STORAGE_FAILED))
}

fn numbers(nodes: &[u32]) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Whether each arc has enough replicas up.
fn quorums(seen: &Examined, all: &mut Findings) {
    let up: BTreeSet<u32> =
        seen.status.nodes.iter().filter(|node| is_up(node)).map(|node| node.number).collect();
    for keyspace in &seen.ring.keyspaces {
        let arcs = seen.ring.arcs.iter().filter(|arc| arc.start.starts_with(&keyspace.id.to_be_bytes()));
        let (mut all_arcs, mut unread, mut unwritten, mut few) = (0, 0, 0, 0);
        for arc in arcs {
            all_arcs += 1;
            // While an arc changes hands both sets have their quorums.
            let next = arc.transition.as_ref().map(|transition| &transition.next);
            let sets = [Some(&arc.replicas), next];
            let least =
                sets.into_iter().flatten().map(|set| set.iter().filter(|node| up.contains(node)).count());
            let least = least.min().unwrap_or_default() as u64;
            unread += u64::from(least < u64::from(keyspace.read_quorum));
            unwritten += u64::from(least < u64::from(keyspace.write_quorum));
            few += u64::from(least < u64::from(keyspace.replicas));
        }
        let at = format!("keyspace {}", keyspace.name);
        let of = |count: u64| format!("{count} of {}", counted(all_arcs, "arc"));
        if unwritten > 0 || unread > 0 {
            let what = format!(
                "too few replicas are up to write to {} and to read from {}",
                of(unwritten),
                of(unread)
            );
            all.problem("quorums", &at, what).to("start the nodes that are down, or replace them");
        } else if few > 0 {
            all.warn(
                "quorums",
                &at,
                format!("{} have a replica that is not up; all can be read and written", of(few)),
            )
            .to("start the nodes that are down, or replace them, before another one goes");
        }
    }
}

fn operations(seen: &Examined, all: &mut Findings) {
    for status in &seen.operations.operations {
        let Some(operation) = &status.operation else { continue };
        let at = format!("operation {}", operation.id);
        if status.blocked.is_empty() {
            let (done, total) = (status.arcs_done, status.arcs_total);
            let what = format!("it is under way: {}; {done} of {total} arcs", words(operation));
            all.note("operations", &at, what).to("god ring watch shows how far it is");
        } else {
            all.warn("operations", &at, format!("it does not go on: {}", status.blocked))
                .to(format!("put that right, or undo it: god ring cancel {}", operation.id));
        }
    }
}

fn clock(node: &NodeStatus, report: &NodeReport, all: &mut Findings) {
    let off = report.clock_offset_us;
    if off.unsigned_abs() < CLOCK_LOOK_US {
        return;
    }
    let what =
        format!("its clock is {} off its peers'; at {MAX_AHEAD_MS} ms it writes nothing", offset_us(off));
    let severity = if off.unsigned_abs() < CLOCK_BAD_US { Severity::Warning } else { Severity::Problem };
    all.add(severity, "clocks", &place(node), what)
        .to("look at its time service (chronyc tracking, timedatectl)");
}

fn disk(node: &NodeStatus, report: &NodeReport, all: &mut Findings) {
    let free = report.disk_free_bytes;
    // A node that cannot tell says nothing; one without any room says that itself, and is not ready.
    if free == 0 {
        all.note("disk", &place(node), "it does not say how much room its disk has");
    } else if free < DISK_BAD {
        all.problem(
            "disk",
            &place(node),
            format!("its disk has {} left; below its reserve it writes nothing", bytes(free)),
        )
        .to("make room, or a larger volume");
    } else if free < DISK_LOOK || free < report.bytes {
        let what = format!("its disk has {} left, beside {} of data", bytes(free), bytes(report.bytes));
        all.warn("disk", &place(node), what)
            .to("make room: compaction and new copies may need as much again");
    }
}

/// What is not where it should be yet.
fn copies(seen: &Examined, node: &NodeStatus, report: &NodeReport, all: &mut Findings) {
    let at = place(node);
    let all_up = seen.status.nodes.iter().all(is_up);
    if report.hints_pending > 0 {
        let what = format!("it keeps {} for nodes that were away", counted(report.hints_pending, "write"));
        match all_up {
            true => all.note("hints", &at, what).to("all nodes are up: they go there now; run this again"),
            false => all
                .warn("hints", &at, what)
                .to("start the nodes that are down, before its hint-limit is reached"),
        }
    }
    if report.hints_dropped > 0 && report.suspect_arcs > 0 {
        let what = format!("{} found no room", counted(report.hints_dropped, "hint"));
        all.warn("hints", &at, what).to(format!(
            "{} are compared once all replicas are up",
            counted(report.suspect_arcs.into(), "arc")
        ));
    }
    if report.lapsed_arcs > 0 {
        let arcs = counted(report.lapsed_arcs.into(), "arc");
        all.warn(
            "copies",
            &at,
            format!("its machine stopped without a clean end: {arcs} answer no reads here yet"),
        )
        .to("it compares itself with the other replicas, which have to be up");
    }
    if report.misplaced_entries > 0 {
        let entries = counted(report.misplaced_entries, "entry");
        all.note("copies", &at, format!("{entries} are not where they belong, and on their way"));
    }
}

/// What its machine gives the process, and what time it shows.
fn process(node: &NodeStatus, http: &Http, all: &mut Findings) {
    let at = place(node);
    if let Some((least, most)) = http.ahead_ms
        && (least > 0 || most < 0)
    {
        // What is certain: the bound that is nearer to zero.
        let off = if least > 0 { least } else { most };
        let what =
            format!("its clock is at least {} off this machine's", offset_us(off.saturating_mul(1_000)));
        all.warn("clocks", &at, what)
            .to("look at the time service of both; nodes compare only with each other");
    }
    match http.figures.get("process_max_fds") {
        None => all
            .note("files", &at, "it does not tell how many files it may open")
            .to("look at its unit or its shell: ulimit -n"),
        Some(most) => {
            let open = http.figures.get("process_open_fds").copied().unwrap_or_default();
            if open > most * 0.8 {
                all.problem("files", &at, format!("{open:.0} of {most:.0} files are open"))
                    .to("raise its limit of open files (LimitNOFILE, ulimit -n), or lower its connections");
            } else if *most < FILES {
                all.warn(
                    "files",
                    &at,
                    format!("it may open {most:.0} files: fewer connections than it is set to"),
                )
                .to("raise its limit of open files (LimitNOFILE, ulimit -n)");
            }
        }
    }
}

fn departed(seen: &Examined, all: &mut Findings) {
    for node in seen.status.departed.iter().filter(|node| !node.acknowledged) {
        let at = format!("node {}", context_id(&node.uuid));
        all.warn("copies", &at, format!("it left in epoch {}, and no quorum knows that yet", node.epoch))
            .to("keep its volume; start the nodes that are down");
    }
}

#[cfg(test)]
mod tests;
