//! Where a cluster may be found: seeds, by address or by name.

use futures::{FutureExt, future::BoxFuture};
use std::time::Duration;
use tokio::time::timeout;

/// The most addresses that are tried in one round.
pub const MAX_CANDIDATES: usize = 256;
/// How long one name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the addresses behind a name.
pub trait Resolver: Send + Sync {
    /// All `host:port` behind a `host:port`; none where the name is not known.
    fn lookup(&self, name: String) -> BoxFuture<'static, Vec<String>>;
}

/// The machine's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns;

impl Resolver for Dns {
    fn lookup(&self, name: String) -> BoxFuture<'static, Vec<String>> {
        async move {
            match tokio::net::lookup_host(&name).await {
                Ok(found) => found.map(|address| address.to_string()).collect(),
                Err(error) => {
                    tracing::debug!(name, %error, "a seed's name is not known");
                    Vec::new()
                }
            }
        }
        .boxed()
    }
}

/// Takes addresses as they are given: for the simulation, where there are no names.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsGiven;

impl Resolver for AsGiven {
    fn lookup(&self, name: String) -> BoxFuture<'static, Vec<String>> {
        futures::future::ready(vec![name]).boxed()
    }
}

/// Everyone behind the seeds but this node itself, in the order of the seeds, each once; at most
/// [`MAX_CANDIDATES`]. Names are looked up anew each time: what is behind them changes.
pub async fn candidates(seeds: &[String], own: &str, resolver: &dyn Resolver) -> Vec<String> {
    let mut selves = look_up(own, resolver).await;
    selves.push(own.to_owned());
    let mut found: Vec<String> = Vec::new();
    for seed in seeds {
        if seed == own {
            continue;
        }
        let mut behind = look_up(seed, resolver).await;
        // A resolver gives its answers in any order.
        behind.sort_unstable();
        for address in behind {
            if found.len() < MAX_CANDIDATES && !selves.contains(&address) && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

async fn look_up(name: &str, resolver: &dyn Resolver) -> Vec<String> {
    timeout(LOOKUP_TIMEOUT, resolver.lookup(name.to_owned())).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl Resolver for Names {
        fn lookup(&self, name: String) -> BoxFuture<'static, Vec<String>> {
            let behind: &[&str] = match name.as_str() {
                "all:1" => &["10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1"],
                "me:1" => &["10.0.0.2:1"],
                "slow:1" => return futures::future::pending().boxed(),
                _ => &[],
            };
            futures::future::ready(behind.iter().map(|&at| at.to_owned()).collect()).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_stands_for_all_its_addresses_but_this_nodes_own() {
        let seeds = ["slow:1", "unknown:1", "all:1", "all:1", "me:1"].map(str::to_owned);
        assert_eq!(candidates(&seeds, "me:1", &Names).await, ["10.0.0.1:1", "10.0.0.3:1"]);
    }

    #[tokio::test]
    async fn addresses_can_be_taken_as_given() {
        let seeds = ["a:1", "b:1"].map(str::to_owned);
        assert_eq!(candidates(&seeds, "a:1", &AsGiven).await, ["b:1"]);
    }
}
