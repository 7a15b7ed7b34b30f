//! Ten times up and down, and each time the operator dies at another moment.

use super::{BIRTH, CHANGE, resize::only_three_volumes};
use crate::{
    load::Load,
    operator::{leader, lose},
    stage::{CLUSTER, Stage},
};
use std::time::{Duration, Instant};

/// How often it goes up and down.
const ROUNDS: u32 = 10;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, BIRTH).await?;
    let load = Load::start(&stage.connect(CLUSTER).await?);
    // How long each way takes while nobody dies: within so long it dies later on.
    let up = change(stage, 4, None).await?;
    let down = change(stage, 3, None).await?;
    for round in 1..=ROUNDS {
        for (nodes, whole) in [(4, up), (3, down)] {
            let moment = whole.mul_f64(rand::random_range(0.0..1.0));
            // Every other time it is made sure that its lease is not given back.
            let is_lost = (round + nodes) % 2 == 0;
            let how = if is_lost { "lost with its lease" } else { "killed" };
            println!(
                "  round {round}, to {nodes} nodes: the operator is {how} after {:.1} s",
                moment.as_secs_f64()
            );
            change(stage, nodes, Some((moment, is_lost))).await?;
        }
    }
    load.stop_and_check().await?;
    only_three_volumes(stage).await
}

async fn change(stage: &Stage, nodes: u32, killed: Option<(Duration, bool)>) -> anyhow::Result<Duration> {
    let since = Instant::now();
    let leads = leader(stage).await?;
    stage.apply(CLUSTER, nodes).await?;
    match killed {
        None => {}
        Some((moment, true)) => {
            tokio::time::sleep(moment).await;
            lose(stage, &leads).await?;
        }
        Some((moment, false)) => {
            tokio::time::sleep(moment).await;
            stage.kill_operator().await?;
        }
    }
    stage.ready(CLUSTER, nodes as usize, CHANGE).await?;
    Ok(since.elapsed())
}
