//! How long a request may take: the least of what its message and its gRPC deadline say.

use god_proto::v1;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Status, metadata::MetadataMap};

/// A request that carries a time limit.
pub(super) trait Timed {
    /// Milliseconds; 0: the node's own limit.
    fn timeout_ms(&mut self) -> &mut u32;
}

macro_rules! timed {
    ($($request:ident),*) => {
        $(impl Timed for v1::$request {
            fn timeout_ms(&mut self) -> &mut u32 {
                &mut self.timeout_ms
            }
        })*
    };
}

timed!(PutRequest, DeleteRequest, GetRequest, ScanRequest, CountRequest, RankRequest, SelectRequest);

/// Lowers a request's limit to its gRPC deadline. A sixteenth is left for the answer's way back: an answer that says
/// what happened is worth more than the time.
pub(super) fn limit(request: &mut impl Timed, metadata: &MetadataMap) {
    if let Some(deadline) = grpc_timeout(metadata) {
        let ms = u32::try_from((deadline / 16 * 15).as_millis()).unwrap_or(u32::MAX).max(1);
        let own = request.timeout_ms();
        *own = if *own == 0 { ms } else { ms.min(*own) };
    }
}

/// The same for each call of a batch.
pub(super) fn limit_calls(calls: &mut [v1::Call], metadata: &MetadataMap) {
    if !metadata.contains_key("grpc-timeout") {
        return;
    }
    for call in calls {
        match &mut call.call {
            Some(v1::call::Call::Put(put)) => limit(put, metadata),
            Some(v1::call::Call::Delete(delete)) => limit(delete, metadata),
            Some(v1::call::Call::Get(get)) => limit(get, metadata),
            None => {}
        }
    }
}

/// Answers a request that carries no limit of its own by its gRPC deadline. A sixteenth is left for the way back.
pub(super) async fn within<T>(metadata: &MetadataMap, answer: impl Future<Output = T>) -> Result<T, Status> {
    let Some(deadline) = grpc_timeout(metadata) else { return Ok(answer.await) };
    timeout(deadline / 16 * 15, answer).await.map_err(|_| {
        Status::deadline_exceeded("there was no answer in time; what was asked for may be done all the same")
    })
}

/// Reads `grpc-timeout`: up to eight digits and a unit. One that cannot be read counts as none, as gRPC has it.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limited(own: u32, header: &'static str) -> u32 {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        let mut request = v1::GetRequest { timeout_ms: own, ..v1::GetRequest::default() };
        limit(&mut request, &metadata);
        request.timeout_ms
    }

    #[test]
    fn the_least_of_the_two_limits_holds() {
        assert_eq!(limited(0, "16S"), 15_000);
        assert_eq!(limited(100, "16S"), 100);
        assert_eq!(limited(20_000, "16S"), 15_000);
        assert_eq!(limited(0, "1600m"), 1_500);
        assert_eq!(limited(0, "5u"), 1);
        assert_eq!(limited(0, "99999999H"), u32::MAX);
    }

    #[test]
    fn a_limit_that_cannot_be_read_counts_as_none() {
        for bad in ["", "S", "1", "1x", "123456789S", "-1S", "1.5S"] {
            assert_eq!(limited(7, bad), 7, "{bad}");
            assert_eq!(limited(0, bad), 0, "{bad}");
        }
    }
}
