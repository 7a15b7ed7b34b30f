//! How the memory of a pod is shared out: what its node may hold for storage, and what for requests.

use super::{GodClusterSpec, NodePool, bytes_of};

const MIB: u64 = 1 << 20;
/// What a node may take beside both: its code, its ring, its connections. `make chaos` holds nodes to it.
const BESIDE: u64 = 150 * MIB;
/// The least that nodes start with.
const LEAST_STORAGE: u64 = 16 * MIB;
const LEAST_REQUESTS: u64 = 32 * MIB;
/// The setting of nodes that this crate has no field for.
pub const REQUEST_MEMORY: &str = "request-memory";

/// Bytes of both parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// For storage's caches and buffers.
    pub storage: u64,
    /// For requests.
    pub requests: u64,
}

/// Shares out `limit`: a third of it for storage and a quarter for requests, in whole MiB, or what is left over for
/// them, where nothing else is said. `None`: it is too small for what is said, what nodes start with, and what they
/// take beside. It never comes to more than the limit.
pub fn share(limit: u64, storage: Option<u64>, requests: Option<u64>) -> Option<MemoryShares> {
    let both = limit.checked_sub(BESIDE)?;
    let derived = |part: u64, other: u64, least: u64| {
        let share = part.min(both.checked_sub(other)?) / MIB * MIB;
        (share >= least).then_some(share)
    };
    let storage = match storage {
        Some(said) => said,
        None => derived(limit / 3, requests.unwrap_or(LEAST_REQUESTS), LEAST_STORAGE)?,
    };
    let requests = match requests {
        Some(said) => said,
        None => derived(limit / 4, storage, LEAST_REQUESTS)?,
    };
    (storage.saturating_add(requests) <= both).then_some(MemoryShares { storage, requests })
}

/// What a pool's nodes get of their pods' limit; `None` where there is none. Where it is too small, what is said and
/// the least of the rest: nodes that run go on to, and somebody is told of the [`short_pools`].
pub fn shares(spec: &GodClusterSpec, pool: &NodePool) -> Option<MemoryShares> {
    let (limit, storage, requests) = (limit(pool)?, pool.memory.as_deref().and_then(size), requests(spec));
    let least = || MemoryShares {
        storage: storage.unwrap_or(LEAST_STORAGE),
        requests: requests.unwrap_or(LEAST_REQUESTS),
    };
    Some(share(limit, storage, requests).unwrap_or_else(least))
}

/// Pools whose limit is too small for what is said.
pub fn short_pools(spec: &GodClusterSpec) -> impl Iterator<Item = &NodePool> {
    spec.node_pools.iter().filter(|pool| {
        let storage = pool.memory.as_deref().and_then(size);
        limit(pool).is_some_and(|limit| share(limit, storage, requests(spec)).is_none())
    })
}

fn limit(pool: &NodePool) -> Option<u64> {
    let limits = pool.resources.as_ref()?.limits.as_ref()?;
    bytes_of(&limits.get("memory")?.0)
}

fn requests(spec: &GodClusterSpec) -> Option<u64> {
    let said = spec.settings.more.get(REQUEST_MEMORY)?;
    size(said).or_else(|| said.parse().ok())
}

/// Bytes, as nodes write them: as Kubernetes does, with a B at the end.
pub fn size(text: &str) -> Option<u64> {
    bytes_of(text.strip_suffix('B')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(limit: u64, storage: Option<u64>, requests: Option<u64>) -> Option<(u64, u64)> {
        let mib = |mib: u64| mib * MIB;
        let shares = share(mib(limit), storage.map(mib), requests.map(mib))?;
        Some((shares.storage / MIB, shares.requests / MIB))
    }

    #[test]
    fn a_limit_is_shared_by_storage_and_requests() {
        for (limit, shares) in [
            (197, None),
            (198, Some((16, 32))),
            (256, Some((74, 32))),
            (512, Some((170, 128))),
            (1_024, Some((341, 256))),
            (3_072, Some((1_024, 768))),
            (65_536, Some((21_845, 16_384))),
        ] {
            assert_eq!(shared(limit, None, None), shares, "{limit} MiB");
        }
    }

    #[test]
    fn what_is_said_is_taken_as_it_is_and_the_rest_is_shared() {
        assert_eq!(shared(512, Some(256), None), Some((256, 106)));
        assert_eq!(shared(512, Some(330), None), Some((330, 32)));
        assert_eq!(shared(512, Some(331), None), None);
        assert_eq!(shared(512, None, Some(256)), Some((106, 256)));
        assert_eq!(shared(512, None, Some(347)), None);
        assert_eq!(shared(512, Some(300), Some(62)), Some((300, 62)));
        assert_eq!(shared(512, Some(300), Some(63)), None);
        assert_eq!(share(512 * MIB, Some(u64::MAX), Some(u64::MAX)), None);
    }

    #[test]
    fn no_limit_that_is_taken_is_exceeded() {
        let said = [None, Some(16 * MIB), Some(100 * MIB + 1), Some(300 * MIB)];
        for limit in (0..4_096 * MIB).step_by(3 * MIB as usize + 4_321).chain([u64::MAX]) {
            for storage in said {
                for requests in said {
                    let Some(shares) = share(limit, storage, requests) else { continue };
                    let sum = u128::from(shares.storage) + u128::from(shares.requests) + u128::from(BESIDE);
                    assert!(sum <= u128::from(limit), "{limit}: {shares:?}");
                    assert!(storage.is_some() || shares.storage >= LEAST_STORAGE, "{limit}: {shares:?}");
                    assert!(requests.is_some() || shares.requests >= LEAST_REQUESTS, "{limit}: {shares:?}");
                }
            }
        }
    }
}
