//! Collects what all rooms count, in the form that Prometheus reads.

use super::{families::describe, process};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{sync::Arc, time::Duration};
use tokio::time::interval;

/// Bounds of durations, in seconds: fine where requests are, coarse where trouble is.
const SECONDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5,
    1.0, 5.0,
];
/// Bounds of sizes, in bytes.
const BYTES: [f64; 8] = [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 1_048_576.0, 8_388_608.0];
/// Bounds of numbers of jobs that are done together.
const JOBS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];
/// How often durations are moved from where they are recorded to where they are counted, so that they do not pile up
/// when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

type Refresh = Arc<dyn Fn() + Send + Sync>;

/// What a scrape reads.
pub struct Metrics {
    handle: PrometheusHandle,
    refresh: Refresh,
}

impl Metrics {
    /// Before each scrape `refresh` is called, for gauges that are cheaper to read than to keep.
    pub fn new(handle: PrometheusHandle, refresh: Refresh) -> Metrics {
        Metrics { handle, refresh }
    }

    /// All metrics, as text.
    pub fn render(&self) -> String {
        (self.refresh)();
        self.handle.render() + &process::render()
    }

    /// Runs for as long as the process does.
    pub async fn upkeep(&self) {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Becomes the process's recorder. Rooms keep handles of what they count, so this comes before all of them.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .set_buckets_for_metric(Matcher::Suffix("_jobs".to_owned()), &JOBS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use metrics::{counter, gauge, histogram};

    #[test]
    fn a_scrape_refreshes_first_and_shows_durations_in_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            counter!("god_peer_calls_total", "peer" => "3").increment(2);
            histogram!("god_doors_seconds", "door" => "grpc", "method" => "get").record(0.000_7);
            let metrics = Metrics::new(handle, Arc::new(|| gauge!("god_test_fresh").set(4.0)));
            let text = metrics.render();
            assert!(text.contains("god_peer_calls_total{peer=\"3\"} 2"), "{text}");
            assert!(text.contains("# HELP god_peer_calls_total Calls to each peer"), "{text}");
            assert!(
                text.contains("god_doors_seconds_bucket{door=\"grpc\",method=\"get\",le=\"0.001\"} 1"),
                "{text}"
            );
            assert!(
                text.contains("god_doors_seconds_bucket{door=\"grpc\",method=\"get\",le=\"0.0005\"} 0"),
                "{text}"
            );
            assert!(text.contains("god_test_fresh 4"), "{text}");
        });
    }
}
