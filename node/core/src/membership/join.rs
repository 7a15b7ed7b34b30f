//! How a node finds its cluster and becomes part of it, or tells it of a new address.

use super::discovery::{Resolver, candidates};
use crate::{
    peer::{Call, CallError, Target, Transport},
    seam::Entropy,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use god_proto::{
    ids::NodeId,
    peer::{Cause, Join, request, response},
    ring::Ring,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time;
use uuid::Uuid;

/// How long one seed may take: it may have to bring about a change of the ring first.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many nodes a node introduces itself to at the same time.
const ASKED_AT_ONCE: usize = 8;
/// The wait after the first round without success; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What a node needs to join.
pub struct Joining {
    /// Who it is, and where. `cluster` names the one cluster that will do; empty: any.
    pub own: Join,
    /// `host:port` of peer doors, or names that stand for several.
    pub seeds: Vec<String>,
    /// Finds what is behind the names.
    pub resolver: Arc<dyn Resolver>,
    /// The way to them.
    pub transport: Arc<dyn Transport>,
    /// For the waits.
    pub entropy: Arc<Entropy>,
}

/// What a node has when it is part of a cluster.
#[derive(Clone, Debug)]
pub struct Joined {
    /// A ring that has the node.
    pub ring: Arc<Ring>,
    /// Its number.
    pub number: NodeId,
    /// Who was asked.
    pub seed: String,
}

/// Why trying again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The seed is of another cluster.
    #[error(
        "cannot join by {seed}: it belongs to cluster {theirs}, this node belongs to {own} \
         (check the seeds, or start with another data directory)"
    )]
    Foreign {
        /// Who was asked.
        seed: String,
        /// Its cluster.
        theirs: Uuid,
        /// The one cluster that will do.
        own: Uuid,
    },
    /// The node left the cluster for good.
    #[error(
        "cannot join by {seed}: node {uuid} left cluster {cluster} for good \
         (start with an empty data directory to join as a new node)"
    )]
    Retired {
        /// Who was asked.
        seed: String,
        /// This node.
        uuid: Uuid,
        /// The cluster it left.
        cluster: Uuid,
    },
    /// Another process is the node (invariant ONE-START).
    #[error("refused by {seed}: {why}")]
    NotTheNode {
        /// Who was asked.
        seed: String,
        /// What it said.
        why: String,
        /// Whether more say so than say otherwise.
        by_most: bool,
    },
    /// The cluster does not want the node as it is.
    #[error("cannot join by {seed}: {why}")]
    Refused {
        /// Who was asked.
        seed: String,
        /// What it said.
        why: String,
    },
}

impl JoinError {
    /// Who was asked.
    fn seed(&self) -> &str {
        match self {
            JoinError::Foreign { seed, .. }
            | JoinError::Retired { seed, .. }
            | JoinError::NotTheNode { seed, .. }
            | JoinError::Refused { seed, .. } => seed,
        }
    }
}

/// What one answer leads to.
#[derive(Debug)]
enum SeedAnswer {
    Joined(Joined),
    /// Ask the next one, and all of them again later.
    Retry(String),
    Never(JoinError),
}

/// Asks the seeds in turn until one takes the node in, for as long as it takes: they may have no cluster yet. Known
/// nodes of the cluster (`known`: their peer addresses) are asked first. Logs once for each new reason to wait.
///
/// An error is final: the node and the cluster do not go together. To give up otherwise, drop the future.
pub async fn find_cluster(joining: &Joining, known: &[String]) -> Result<Joined, JoinError> {
    let (mut wait, mut reason) = (FIRST_WAIT, String::new());
    loop {
        let own = &joining.own.peer_address;
        let mut addresses: Vec<String> = known.iter().filter(|at| *at != own).cloned().collect();
        for seed in candidates(&joining.seeds, own, &*joining.resolver).await {
            if !addresses.contains(&seed) {
                addresses.push(seed);
            }
        }
        let mut latest = "no address of another node is known".to_owned();
        for address in addresses {
            match ask(joining, &address).await {
                SeedAnswer::Joined(joined) => return Ok(joined),
                SeedAnswer::Never(error) => return Err(error),
                SeedAnswer::Retry(why) => latest = why,
            }
        }
        if latest != reason {
            let what = if known.is_empty() { "a cluster to join" } else { "another node of the cluster" };
            tracing::info!("waiting for {what}: {latest}");
            reason = latest;
        }
        // Between half of it and all: nodes that start together do not ask together.
        let half_us = wait.as_micros() as u64 / 2;
        let jitter = Duration::from_micros(joining.entropy.below(half_us + 1));
        time::sleep(wait / 2 + jitter).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// Asks the known nodes of a cluster (`others`: their UUIDs and peer addresses), each once and all at about the same
/// time, to take this process for the node that it says it is: one may know what another does not, and one alone may
/// have been led astray. `first` is what came of asking one node, which may be one of them; where the others moved,
/// too, the ring that it has says where they are now, and they are asked there. An error is final: it is not the node
/// for half or more of those that answer (ONE-START), or the node and the cluster do not go together.
pub async fn introduce(
    joining: &Joining,
    others: &[(Bytes, String)],
    first: Result<Joined, JoinError>,
) -> Result<Joined, JoinError> {
    let asked = match &first {
        Ok(joined) => joined.seed.clone(),
        Err(error) => error.seed().to_owned(),
    };
    let now = first.as_ref().map_or_else(|_| Vec::new(), |joined| homes(&joined.ring, &joining.own.uuid));
    // One that moved counts once, wherever it answers.
    let (mut nodes, mut rest) = (BTreeSet::new(), Vec::<&String>::new());
    for (uuid, address) in now.iter().chain(others) {
        if nodes.insert(uuid) && *address != asked && !rest.contains(&address) {
            rest.push(address);
        }
    }
    let asks: Vec<_> = rest.into_iter().map(|address| ask(joining, address)).collect();
    let answers: Vec<SeedAnswer> = stream::iter(asks).buffered(ASKED_AT_ONCE).collect().await;
    let (mut taken, mut refused) = (0, 0);
    let (mut refusal, mut foreign) = (None, None);
    let mut note = |said: &Result<Joined, JoinError>| match said {
        Ok(_) => taken += 1,
        Err(JoinError::NotTheNode { seed, why, .. }) => {
            refused += 1;
            refusal = Some((seed.clone(), why.clone()));
        }
        // One that took over the address of a node says nothing of this one.
        Err(error) => foreign = Some(error.clone()),
    };
    note(&first);
    let mut best = first;
    for said in answers {
        let said = match said {
            SeedAnswer::Joined(joined) => Ok(joined),
            SeedAnswer::Never(error @ JoinError::Retired { .. }) => return Err(error),
            SeedAnswer::Never(error) => Err(error),
            SeedAnswer::Retry(_) => continue,
        };
        note(&said);
        best = said.or(best);
    }
    let by_most = refused > taken;
    match refusal {
        Some((seed, why)) if refused >= taken => return Err(JoinError::NotTheNode { seed, why, by_most }),
        Some((seed, why)) => {
            tracing::warn!(seed, why, "not all other nodes take this process for the node that it is");
        }
        None => {}
    }
    if let (Ok(_), Some(error)) = (&best, foreign) {
        tracing::warn!(%error, "another cluster has the address of a node");
    }
    best
}

/// UUIDs and peer addresses of the nodes of a ring, but for one.
pub fn homes(ring: &Ring, but: &[u8]) -> Vec<(Bytes, String)> {
    let others = ring.nodes().iter().filter(|node| node.uuid[..] != *but && !node.peer_address.is_empty());
    others.map(|node| (node.uuid.clone(), node.peer_address.clone())).collect()
}

async fn ask(joining: &Joining, address: &str) -> SeedAnswer {
    let call = Call { epoch: 0, arcs: 0, timeout: TIMEOUT, body: request::Body::Join(joining.own.clone()) };
    let answer = joining.transport.call(Target::Address(address.to_owned()), call).await;
    let said = judge(address, answer, &joining.own);
    // Who is to be asked again soon is kept at hand.
    if !matches!(said, SeedAnswer::Retry(_)) {
        joining.transport.leave(address);
    }
    said
}

fn judge(seed: &str, answer: Result<response::Body, CallError>, own: &Join) -> SeedAnswer {
    let retry = |why: String| SeedAnswer::Retry(format!("{seed}: {why}"));
    let document = match answer {
        Ok(response::Body::Ring(done)) => match done.ring {
            Some(document) => document,
            None => return retry("it answered without a ring".to_owned()),
        },
        Ok(_) => return retry("it answered something else".to_owned()),
        Err(CallError::Refused(failure)) if failure.cause() == Cause::Invalid => {
            return SeedAnswer::Never(JoinError::Refused { seed: seed.to_owned(), why: failure.message });
        }
        Err(CallError::Refused(failure)) if failure.cause() == Cause::NotTheNode => {
            return SeedAnswer::Never(JoinError::NotTheNode {
                seed: seed.to_owned(),
                why: failure.message,
                by_most: true,
            });
        }
        Err(error) => return retry(error.to_string()),
    };
    let ring = match Ring::new(document) {
        Ok(ring) => ring,
        Err(error) => return retry(error.to_string()),
    };
    let Ok(uuid) = Uuid::from_slice(&own.uuid) else {
        let why = "this node's UUID is not 16 bytes".to_owned();
        return SeedAnswer::Never(JoinError::Refused { seed: seed.to_owned(), why });
    };
    if let Ok(wanted) = Uuid::from_slice(&own.cluster)
        && wanted != ring.cluster()
    {
        let (seed, theirs) = (seed.to_owned(), ring.cluster());
        return SeedAnswer::Never(JoinError::Foreign { seed, theirs, own: wanted });
    }
    if ring.is_retired(uuid) {
        let (seed, cluster) = (seed.to_owned(), ring.cluster());
        return SeedAnswer::Never(JoinError::Retired { seed, uuid, cluster });
    }
    match ring.node_by_uuid(uuid).map(|node| NodeId(node.number)) {
        Some(number) => SeedAnswer::Joined(Joined { ring: Arc::new(ring), number, seed: seed.to_owned() }),
        None => retry("its ring does not have this node yet".to_owned()),
    }
}
