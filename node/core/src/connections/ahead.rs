//! What clients may send ahead of being read: HTTP/2's window of each connection, dealt from one number of bytes.

use super::serve::Http2;
use metrics::gauge;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The least window that HTTP/2 knows for a connection, in bytes.
const LEAST: u64 = 65_535;
/// A connection gets at most this part of what is left, so that those after it get something too.
const PART: u64 = 8;

/// The bytes of one door. Clones share them.
///
/// A window cannot be taken back from a connection that has it. So the first ones get as much as they can use, and the
/// more there are the less the next one gets; together they get `limit`, and [`LEAST`] each beyond that.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    left: Arc<AtomicU64>,
    limit: u64,
    door: &'static str,
}

impl Ahead {
    /// So many bytes.
    pub fn new(door: &'static str, limit: u64) -> Ahead {
        Ahead { left: Arc::new(AtomicU64::new(limit)), limit, door }
    }

    /// The window of a connection that could use so many bytes; it is given back when the grant goes.
    pub fn grant(&self, useful: u32) -> Granted {
        let share = |left: u64| (left / PART).clamp(LEAST, u64::from(useful).max(LEAST));
        let (mut bytes, mut taken) = (LEAST, 0);
        let _always = self.left.fetch_update(Relaxed, Relaxed, |left| {
            bytes = share(left);
            taken = bytes.min(left);
            Some(left - taken)
        });
        self.show();
        Granted { bytes: bytes as u32, taken, ahead: self.clone() }
    }

    fn show(&self) {
        let granted = self.limit - self.left.load(Relaxed).min(self.limit);
        gauge!("god_connections_send_ahead_bytes", "door" => self.door).set(granted as f64);
    }
}

/// A window.
#[derive(Debug)]
pub(crate) struct Granted {
    bytes: u32,
    taken: u64,
    ahead: Ahead,
}

impl Granted {
    /// The bounds of HTTP/2 within this window.
    pub fn bound(&self, http2: Http2) -> Http2 {
        let stream_window = http2.stream_window.min(self.bytes);
        Http2 { stream_window, connection_window: self.bytes, ..http2 }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.ahead.left.fetch_add(self.taken, Relaxed);
        self.ahead.show();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_get_what_they_can_use_and_all_together_no_more_than_there_is() {
        let (limit, useful) = (128 << 20, 4 << 20);
        let ahead = Ahead::new("test", limit);
        let grants: Vec<Granted> = (0..4_096).map(|_| ahead.grant(useful)).collect();
        assert!(grants[..20].iter().all(|grant| grant.bytes == useful));
        assert!(grants.is_sorted_by(|a, b| a.bytes >= b.bytes), "the later the less");
        assert_eq!(u64::from(grants[4_095].bytes), LEAST);
        let all: u64 = grants.iter().map(|grant| u64::from(grant.bytes)).sum();
        assert!(all <= limit + 4_096 * LEAST, "{all}");
        drop(grants);
        assert_eq!(ahead.left.load(Relaxed), limit);
        assert_eq!(u64::from(ahead.grant(1).bytes), LEAST, "HTTP/2 knows no less");
    }
}
