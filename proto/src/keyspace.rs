//! What a keyspace may be that is to be made: one rule for whoever asks for one, and for the ring that takes it in.
//! A ring may hold keyspaces that were made under other rules; what it relies on is in [`crate::ring`].

use crate::{ring::check_keyspace, time::check_ttl_ms, v1::Keyspace};

/// Whether this may be a new keyspace's name: one that paths and command lines take for nothing else.
///
/// # Errors
/// A sentence that says what may be one.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a keyspace's name; write 1 to 64 letters, digits, '-', '_' or '.', the first one a letter, a \
         digit or '_'"
    ))
}

/// Whether a ring may take in this keyspace as a new one.
///
/// # Errors
/// A sentence for who asked for it.
pub fn check_new(keyspace: &Keyspace) -> Result<(), String> {
    check_name(&keyspace.name)?;
    check_ttl_ms(keyspace.default_ttl_ms).map_err(|why| {
        let Keyspace { name, default_ttl_ms, .. } = keyspace;
        format!("the time to live of keyspace {name} is {default_ttl_ms} ms: {why}")
    })?;
    check_keyspace(keyspace)
}

/// The write and the read quorum of so many copies, where 0 stands for one that was left out: writes ask a majority;
/// reads ask a majority too, and never so few that they could miss what a write quorum acknowledged.
pub fn default_quorums(replicas: u32, write: u32, read: u32) -> (u32, u32) {
    let majority = replicas / 2 + 1;
    let write = if write == 0 { majority } else { write };
    let meets = (replicas + 1).saturating_sub(write);
    (write, if read == 0 { majority.max(meets) } else { read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_quorum_that_is_left_out_meets_every_write() {
        for replicas in 1..=5 {
            for write in 0..=replicas {
                let (write, read) = default_quorums(replicas, write, 0);
                assert!(write + read > replicas && read <= replicas, "{write} and {read} of {replicas}");
                assert_eq!(default_quorums(replicas, write, 1), (write, 1), "what is said holds");
            }
        }
        assert_eq!(default_quorums(4, 0, 0), (3, 3));
        assert_eq!(default_quorums(3, 1, 0), (1, 3));
    }

    use crate::time::MAX_TTL_MS;

    #[test]
    fn a_name_is_one_that_nothing_else_bears() {
        for right in ["a", "default", "7", "_x", "a.b-c_d", &"k".repeat(64)] {
            assert_eq!(check_name(right), Ok(()));
        }
        for wrong in ["", ".", "..", "-a", "--", ".hidden", "a b", "a/b", "ü", "a\n", &"k".repeat(65)] {
            let refused = check_name(wrong).unwrap_err();
            assert!(refused.contains("the first one a letter"), "{wrong:?}: {refused}");
        }
    }

    #[test]
    fn a_new_keyspace_has_a_time_to_live_that_its_writes_may_have() {
        let keyspace = |name: &str, default_ttl_ms| Keyspace {
            name: name.to_owned(),
            replicas: 3,
            write_quorum: 2,
            read_quorum: 2,
            default_ttl_ms,
            ..Keyspace::default()
        };
        assert_eq!(check_new(&keyspace("a", 0)), Ok(()));
        assert_eq!(check_new(&keyspace("a", MAX_TTL_MS)), Ok(()));
        assert!(check_new(&keyspace("a", MAX_TTL_MS + 1)).unwrap_err().contains("1,000 years"));
        assert!(check_new(&keyspace("-a", 0)).is_err());
        assert!(check_new(&Keyspace { write_quorum: 4, ..keyspace("a", 0) }).is_err());
    }
}
