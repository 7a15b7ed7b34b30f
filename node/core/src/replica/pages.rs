//! What of a range fits in one answer.

use crate::{
    engine::{Direction, EngineError},
    peer::to_entry,
    radix::View,
};
use bytes::Bytes;
use god_proto::{MAX_PAGE, PAGE_BYTES, peer, position::PositionRange, record::Entry};

/// How much of a page is read before it is paid for.
const PAID_AT: usize = 64 << 10;

/// The entries from one end of a range, tombstones among them: one at least, if there is one. What is above a
/// ceiling is not there (FAR-IS-NOT-THERE). Each part is paid for as it is read: where that cannot be done the page
/// ends before it, but for its first entry, which whoever takes the page pays for (BUDGET). Blocks on the disk.
pub(super) fn page(
    view: &View,
    range: &PositionRange,
    scan: &peer::Scan,
    ceiling_ms: u64,
    mut pay: impl FnMut(usize) -> bool,
) -> Result<peer::ScanDone, EngineError> {
    // OWNERS-FIRST: what cannot be read can be handed over to nobody, and the rest can.
    let all: Box<dyn Iterator<Item = _>> = match (scan.as_stored, scan.reverse) {
        (true, false) => Box::new(view.readable(range)),
        (_, true) => Box::new(view.scan(range, Direction::Reverse)),
        (false, false) => Box::new(view.scan(range, Direction::Forward)),
    };
    let limit = scan.limit.clamp(1, MAX_PAGE) as usize;
    let most = match scan.max_bytes as usize {
        0 => PAGE_BYTES,
        bytes => bytes.min(PAGE_BYTES),
    };
    let (mut entries, mut bytes, mut unpaid) = (Vec::new(), 0, 0);
    for entry in all {
        let mut entry = entry?;
        if entry.record.version.ms() > ceiling_ms {
            continue;
        }
        if scan.keys_only {
            entry.record.value = Bytes::new();
        }
        // The page is as long, whether values are told or not.
        let Entry { position, record } = entry;
        bytes += position.as_bytes().len() + record.encoded_len();
        if entries.len() >= limit || (bytes > most && !entries.is_empty()) {
            return Ok(peer::ScanDone { entries, more: true, ..peer::ScanDone::default() });
        }
        let told = to_entry(Ok(Some(record)), scan.largest_bytes);
        let told = peer::Entry { position: position.into_bytes(), ..told };
        unpaid += told.position.len() + told.value.len() + size_of::<peer::Entry>();
        if unpaid >= PAID_AT {
            if !pay(unpaid) {
                if entries.is_empty() {
                    entries.push(told);
                }
                return Ok(peer::ScanDone { entries, more: true, ..peer::ScanDone::default() });
            }
            unpaid = 0;
        }
        entries.push(told);
    }
    Ok(peer::ScanDone { entries, more: false, ..peer::ScanDone::default() })
}
