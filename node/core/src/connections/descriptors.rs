//! Descriptors: as many as the system gives, and always some that no connection takes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What storage (`max_open_files` of 512), the log, and connections to other nodes may need at once.
const RESERVE: u64 = 1_024;
/// Where the system gives almost none, a door still has this many slots.
const LEAST: usize = 8;

/// Raises the limit of open files to what the system permits, and says how many that is.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections each door may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorConnections {
    /// Of clients.
    pub grpc: usize,
    /// Of other nodes.
    pub peer: usize,
    /// Of people and monitors.
    pub http: usize,
}

/// What is left of the wishes once storage has its reserve (DESCRIPTORS-RESERVED): the wishes themselves, or a
/// part of each, in proportion, where `descriptors` do not suffice.
pub fn share(descriptors: u64, wish: DoorConnections) -> DoorConnections {
    let free = descriptors.saturating_sub(RESERVE.min(descriptors / 2));
    let wanted = (wish.grpc + wish.peer + wish.http) as u64;
    let part = |wish: usize| {
        if wanted <= free {
            return wish;
        }
        let part = u128::from(free) * wish as u128 / u128::from(wanted.max(1));
        (part as usize).clamp(LEAST.min(wish), wish)
    };
    DoorConnections { grpc: part(wish.grpc), peer: part(wish.peer), http: part(wish.http) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_keeps_its_descriptors_however_many_connections_are_wished_for() {
        let wish = DoorConnections { grpc: 4_096, peer: 2_048, http: 256 };
        assert_eq!(share(1 << 20, wish), wish);
        assert_eq!(share(u64::MAX, wish), wish);
        for descriptors in [256, 1_024, 2_048, 4_096, 7_000] {
            let DoorConnections { grpc, peer, http } = share(descriptors, wish);
            let left = descriptors - (grpc + peer + http) as u64;
            // But for the few slots that a door has in any case.
            let reserve = RESERVE.min(descriptors / 2) - 3 * LEAST as u64;
            assert!(left >= reserve, "{descriptors}: {left} are left");
            assert!(grpc >= LEAST && peer >= LEAST && http >= LEAST);
        }
        assert_eq!(share(0, DoorConnections { grpc: 100, peer: 4, http: 100 }).peer, 4);
    }
}
