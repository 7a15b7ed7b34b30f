//! What is played, one file each.

mod astray;
mod birth;
mod cancel;
mod drain;
mod invalid;
mod killed;
mod lease;
mod lost;
mod namespace;
mod often;
mod pair;
mod plain;
mod plugin;
mod resize;
mod rest;

use crate::{
    load::{Load, fill},
    stage::{CLUSTER, Stage, slow},
};
use futures::future::LocalBoxFuture;
use god_operator::crd::GodCluster;
use std::time::Duration;

/// What is played, and how long it may take.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub says: &'static str,
    /// Whether it belongs to the core.
    pub is_core: bool,
    /// It fails after so long.
    pub limit: Duration,
    /// Plays it.
    pub play: fn(&Stage) -> LocalBoxFuture<'_, anyhow::Result<()>>,
}

/// A cluster of so many nodes that move so much data a second each (such as `1MiB`): once it is ready, it is filled and
/// put under a checked load.
async fn under_load(stage: &Stage, nodes: u16, rate: &str) -> anyhow::Result<(GodCluster, Load)> {
    stage.apply_object(CLUSTER, &slow(u32::from(nodes), rate)).await?;
    let cluster = stage.ready(CLUSTER, nodes.into(), BIRTH).await?;
    let client = stage.connect(CLUSTER).await?;
    fill(&client).await?;
    Ok((cluster, Load::start(&client)))
}

/// All of them, in the order in which they are played.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "invalid",
        says: "ten specs are refused at admission, each with what to do about it",
        is_core: true,
        limit: Duration::from_secs(60),
        play: |stage| Box::pin(invalid::play(stage)),
    },
    Scenario {
        name: "birth",
        says: "a cluster of three nodes is born, and takes writes and reads through its service",
        is_core: true,
        limit: Duration::from_secs(240),
        play: |stage| Box::pin(birth::play(stage)),
    },
    Scenario {
        name: "resize",
        says: "three nodes become five and three again, under a load that loses nothing",
        is_core: true,
        limit: Duration::from_secs(480),
        play: |stage| Box::pin(resize::play(stage)),
    },
    Scenario {
        name: "killed",
        says: "the operator is killed again and again while three nodes become four, and three again",
        is_core: true,
        limit: Duration::from_secs(600),
        play: |stage| Box::pin(killed::play(stage)),
    },
    Scenario {
        name: "killed-ten",
        says: "ten times three nodes become four and three again, and each time the operator dies at a random moment",
        is_core: false,
        limit: Duration::from_secs(1_200),
        play: |stage| Box::pin(often::play(stage)),
    },
    Scenario {
        name: "lease",
        says: "the operator is lost, then frozen, while it holds the lease: another one takes over, and only one leads",
        is_core: false,
        limit: Duration::from_secs(480),
        play: |stage| Box::pin(lease::play(stage)),
    },
    Scenario {
        name: "cancel",
        says: "a shrink is taken back while data move, and nobody leaves",
        is_core: false,
        limit: Duration::from_secs(480),
        play: |stage| Box::pin(cancel::play(stage)),
    },
    Scenario {
        name: "lost-pod",
        says: "a pod is deleted under load, and comes back as the node that it was",
        is_core: false,
        limit: Duration::from_secs(360),
        play: |stage| Box::pin(lost::play(stage)),
    },
    Scenario {
        name: "drain",
        says: "Kubernetes nodes are drained under load: one pod may go, and no quorum with it",
        is_core: false,
        limit: Duration::from_secs(480),
        play: |stage| Box::pin(drain::play(stage)),
    },
    Scenario {
        name: "namespace",
        says: "a namespace is deleted in the middle of a change, and ends",
        is_core: false,
        limit: Duration::from_secs(360),
        play: |stage| Box::pin(namespace::play(stage)),
    },
    Scenario {
        name: "pair",
        says: "two clusters live in one namespace, and one of them is deleted",
        is_core: false,
        limit: Duration::from_secs(360),
        play: |stage| Box::pin(pair::play(stage)),
    },
    Scenario {
        name: "astray",
        says: "a node that was started by hand is told of, with what to do, and leaves",
        is_core: false,
        limit: Duration::from_secs(360),
        play: |stage| Box::pin(astray::play(stage)),
    },
    Scenario {
        name: "plugin",
        says: "kubectl god shows the ring, plans, takes an operation back, and opens a shell",
        is_core: false,
        limit: Duration::from_secs(480),
        play: |stage| Box::pin(plugin::play(stage)),
    },
    Scenario {
        name: "rest",
        says: "nothing is written while there is nothing to do",
        is_core: false,
        limit: Duration::from_secs(1_360),
        play: |stage| Box::pin(rest::play(stage)),
    },
    // The last one: it takes the chart away, and leaves no operator.
    Scenario {
        name: "plain",
        says: "without Helm: kubectl apply of the operator and of a cluster, which grows, shrinks, goes and comes back",
        is_core: false,
        limit: Duration::from_secs(600),
        play: |stage| Box::pin(plain::play(stage)),
    },
];

/// How long a cluster of a few nodes may take to be born.
const BIRTH: Duration = Duration::from_secs(150);
/// How long a node or two may take to come or go.
const CHANGE: Duration = Duration::from_secs(200);
