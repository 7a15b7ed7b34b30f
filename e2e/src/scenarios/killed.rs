//! The operator dies at any moment, and another one goes on.

use super::{CHANGE, resize::only_three_volumes, under_load};
use crate::{
    load::FILLED,
    stage::{CLUSTER, Stage, slow},
};
use std::time::Duration;

/// What each node takes a second when data move.
const RATE: &str = "1MiB";

/// After how many milliseconds it is killed again: in the middle of a change, before a new one leads, or just then.
const LIFE: std::ops::Range<u64> = 200..3_000;
/// How often it is killed in each direction; the last one lives.
const TIMES: u32 = 5;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    let (_, load) = under_load(stage, 3, RATE).await?;
    for nodes in [4, 3] {
        stage.apply_object(CLUSTER, &slow(nodes, RATE)).await?;
        let limit = CHANGE + Duration::from_secs(30) * TIMES;
        let (killed, changed) =
            futures::future::join(kill(stage), stage.ready(CLUSTER, nodes as usize, limit)).await;
        killed?;
        changed?;
    }
    load.stop_and_check_among(FILLED).await?;
    only_three_volumes(stage).await
}

async fn kill(stage: &Stage) -> anyhow::Result<()> {
    for _ in 0..TIMES {
        tokio::time::sleep(Duration::from_millis(rand::random_range(LIFE))).await;
        stage.kill_operator().await?;
        println!("    the operator is killed");
    }
    Ok(())
}
