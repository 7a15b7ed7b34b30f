//! A node that copies an arc comes upon what is damaged in what it has of it.

use super::*;
use god_proto::v1::Transition;

/// The arc of `default` goes from nodes 1, 2 and 3 to `next`.
fn goes_to(next: &[u32]) -> Cluster {
    let mut document = document(5, 6);
    document.arcs[0].transition = Some(Transition { next: next.to_vec(), since: 6 });
    Cluster::with(&ring(document), HintSettings::default())
}

fn is_ready(upkeep: &Upkeep) -> bool {
    upkeep.receiving.report().arcs.first().is_some_and(|arc| arc.ready)
}

/// BARRIER: what overwrote it may be older than what it was, and is acknowledged by another one that is away.
#[tokio::test(start_paused = true)]
async fn a_replica_that_stays_is_no_source_for_itself_once_damage_was_overwritten() {
    let cluster = goes_to(&[1]);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(2);
    for node in [1, 3] {
        cluster.seed(node, value(&at[0], -20_000, "acknowledged")).await;
    }
    cluster.seed(2, value(&at[0], -30_000, "older")).await;
    // What was written last is remembered, whatever stands there.
    for node in 1..=3 {
        cluster.seed(node, value(&at[1], -20_000, "beside it")).await;
    }
    damage(&cluster, 1, &at[0]);
    cluster.does(3, Does::Unreachable);
    let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.held(1, &at[0]).await, Some(value(&at[0], -30_000, "older").record));
    assert!(!is_ready(&upkeep));
    cluster.does(3, Does::Answer);
    sleep(Duration::from_secs(5)).await;
    assert!(is_ready(&upkeep));
    assert_eq!(cluster.held(1, &at[0]).await, Some(value(&at[0], -20_000, "acknowledged").record));
    receives.abort();
}

/// What it has compared with one source is as good as not compared once another one's older record is there.
#[tokio::test(start_paused = true)]
async fn what_was_lapsed_before_is_compared_with_all_sources_again_once_it_was_overwritten() {
    let cluster = goes_to(&[1]);
    let upkeep = upkeep(&cluster, 1);
    // So many that the index knows what is in most buckets without a look.
    let at = positions(3_000);
    let damaged = &at[1_500];
    for node in 1..=3 {
        let ms = |at: &Position| if node == 2 && at == damaged { -30_000 } else { -20_000 };
        let all = at.iter().map(|at| value(at, ms(at), "a value")).collect();
        cluster.node(node).store.write(all).await.unwrap();
    }
    damage(&cluster, 1, damaged);
    cluster.node(1).replica.lapse().add(&at[1_499..1_502]).await.unwrap();
    let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
    sleep(Duration::from_secs(5)).await;
    assert!(is_ready(&upkeep));
    assert_eq!(cluster.held(1, damaged).await, Some(value(damaged, -20_000, "a value").record));
    receives.abort();
}

/// It would refuse clients after the switch.
#[tokio::test(start_paused = true)]
async fn a_new_replica_is_whole_before_it_is_ready() {
    for was_lapsed in [false, true] {
        let cluster = goes_to(&[2, 3, 4]);
        let upkeep = upkeep(&cluster, 4);
        let at = positions(9);
        for node in 1..=4 {
            for at in &at {
                let ms = if node < 4 { -20_000 } else { -30_000 };
                cluster.seed(node, value(at, ms, "a value")).await;
            }
        }
        damage(&cluster, 4, &at[4]);
        let lapse = Arc::clone(cluster.node(4).replica.lapse());
        if was_lapsed {
            lapse.add(&at).await.unwrap();
        }
        let before = lapse.count();
        let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
        for _ in 0..5_000 {
            if is_ready(&upkeep) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert!(is_ready(&upkeep) && lapse.is_whole(), "was lapsed: {was_lapsed}");
        assert!(lapse.count() > before, "the damage was come upon");
        receives.abort();
    }
}
