//! That runs repeat, that things happen in them, and that broken promises are found: each checker is shown a store that
//! does not keep what it guards.

use god_sim::{
    lies::Lie,
    run::{Broken, RunReport, run},
};

/// Runs seeds until a problem was found with each of these words; gives those that were not.
fn not_found<'a>(broken: Broken, words: &[&'a str]) -> Vec<&'a str> {
    let mut left = words.to_vec();
    for seed in 1..=60 {
        let problems = run(seed, broken).problems;
        left.retain(|words| !problems.iter().any(|problem| problem.contains(words)));
        if left.is_empty() {
            break;
        }
    }
    left
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3, 17, 40] {
        assert_eq!(
            run(seed, Broken::Nothing).fingerprint,
            run(seed, Broken::Nothing).fingerprint,
            "seed {seed}"
        );
    }
    assert_ne!(run(1, Broken::Nothing).fingerprint, run(2, Broken::Nothing).fingerprint);
}

#[test]
fn much_happens_in_a_run() {
    let outcomes: Vec<RunReport> = (1..=10).map(|seed| run(seed, Broken::Nothing)).collect();
    let sum = |of: fn(&RunReport) -> usize| outcomes.iter().map(of).sum::<usize>();
    assert!(sum(RunReport::committed) > 5_000, "{} writes acknowledged", sum(RunReport::committed));
    assert!(sum(RunReport::read) > 5_000, "{} reads answered", sum(RunReport::read));
    assert!(sum(RunReport::unknown) > 100, "{} writes of unknown outcome", sum(RunReport::unknown));
    assert!(sum(|outcome| outcome.surveys) > 300, "{} listings and counts", sum(|outcome| outcome.surveys));
    assert!(sum(|outcome| outcome.faults.len()) > 100);
    let hit = |outcome: &RunReport| {
        let under_way =
            |at: u64| outcome.history.iter().any(|event| event.called < at && at < event.answered);
        outcome.faults.iter().filter(|(at, _)| under_way(*at)).count()
    };
    let hit: usize = outcomes.iter().map(hit).sum();
    assert!(hit > 50, "{hit} faults met operations under way");
}

#[test]
fn one_replica_taken_for_a_quorum_is_found_stale() {
    let wanted = ["older than an acknowledged write", "came back", "is lost", "listed by node"];
    assert_eq!(not_found(Broken::Quorum, &wanted), [""; 0], "60 runs without a quorum do not show this");
}

#[test]
fn machines_that_go_down_without_having_synced_are_found_to_lose_writes() {
    assert_eq!(
        not_found(Broken::Sync, &["acknowledged write"]),
        [""; 0],
        "60 runs that sync nothing lose nothing"
    );
}

#[test]
fn replicas_that_throw_values_away_are_found_to_lose_them() {
    let wanted = ["is lost", "not listed", "there were"];
    assert_eq!(not_found(Broken::Lies(Lie::Values), &wanted), [""; 0]);
}

#[test]
fn replicas_that_throw_deletions_away_are_found_to_bring_values_back() {
    let wanted = ["a deleted value came back", "a deleted key came back"];
    assert_eq!(not_found(Broken::Lies(Lie::Deletions), &wanted), [""; 0]);
}

#[test]
fn reads_that_repair_nothing_are_found_to_go_back() {
    let wanted = ["a read is older than a read before it", "LEVEL"];
    assert_eq!(not_found(Broken::Lies(Lie::Repairs), &wanted), [""; 0]);
}
