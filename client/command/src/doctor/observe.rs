//! What is to be seen from here: each node is asked by itself, all at once, for a bounded time and a bounded answer.

use crate::{context::Context, failure::Failure, options::Global};
use futures::future::join_all;
use god_client::Client;
use god_proto::v1::{ListOperationsReply, NodeStatus, RingDocument, StatusReply};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpStream, time::timeout};

/// How long one node may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of a node's metrics that are read.
const MOST: usize = 8 << 20;

/// All that was seen.
#[derive(Debug, Default)]
pub struct Examined {
    /// As one of the named servers sees the cluster.
    pub status: StatusReply,
    pub ring: RingDocument,
    pub operations: ListOperationsReply,
    /// What each node of the status says for itself, in its order.
    pub nodes: Vec<NodeAnswers>,
    /// This program's version.
    pub version: String,
}

/// A node, asked by itself.
#[derive(Debug)]
pub struct NodeAnswers {
    /// Its own answer at its door for clients, or why there is none.
    pub own: Result<StatusReply, String>,
    /// Its answer at its door for HTTP, or why there is none.
    pub http: Result<Http, String>,
}

/// A node's metrics.
#[derive(Debug, Default, PartialEq)]
pub struct Http {
    /// Values by name, without those that have labels.
    pub figures: BTreeMap<String, f64>,
    /// Its clock is ahead of this machine's by at least and at most so many milliseconds; none: it does not say.
    pub ahead_ms: Option<(i64, i64)>,
}

/// Looks at everything. Fails where no named server answers.
pub async fn observe(global: &Global, context: &Context) -> Result<Examined, Failure> {
    let client = context.client();
    let status = client.status().await?;
    let ring = client.ring().await?;
    let operations = client.list_operations().await?;
    let patience = global.timeout.unwrap_or(PATIENCE).min(PATIENCE);
    let nodes = join_all(status.nodes.iter().map(|node| ask(node, patience))).await;
    Ok(Examined { status, ring, operations, nodes, version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn ask(node: &NodeStatus, patience: Duration) -> NodeAnswers {
    let own = async {
        let to = Client::builder()
            .servers([node.grpc_address.clone()])
            .timeout(patience)
            .connect_timeout(patience);
        let client = to.connect().await.map_err(|error| error.to_string())?;
        client.status().await.map_err(|error| error.to_string())
    };
    let late = || format!("no answer within {} ms", patience.as_millis());
    let (own, http) = tokio::join!(timeout(patience, own), timeout(patience, metrics(&node.http_address)));
    NodeAnswers { own: own.unwrap_or_else(|_| Err(late())), http: http.unwrap_or_else(|_| Err(late())) }
}

async fn metrics(address: &str) -> Result<Http, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut send, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get("/metrics").header(header::HOST, address).body(String::new());
    let request = request.map_err(|error| error.to_string())?;
    let ask = async {
        let sent = now_ms();
        let answer = send.send_request(request).await.map_err(|error| error.to_string())?;
        let received = now_ms();
        if !answer.status().is_success() {
            return Err(format!("/metrics answers {}", answer.status()));
        }
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(date_ms);
        let body =
            Limited::new(answer.into_body(), MOST).collect().await.map_err(|error| error.to_string())?;
        let figures = figures(&body.to_bytes());
        Ok(Http { figures, ahead_ms: date.map(|date| ahead(date, sent, received)) })
    };
    // The connection does its part while the answer is read, and ends with it.
    tokio::select! {
        answer = ask => answer,
        ended = connection => Err(ended.err().map_or_else(|| "it hung up".to_owned(), |error| error.to_string())),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// HTTP's date has whole seconds, cut off.
fn date_ms(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// By how much a clock that showed `date` between `sent` and `received` of this machine's is ahead, at least and at
/// most. A server may keep a date for a second before it looks at the clock again.
fn ahead(date: i64, sent: i64, received: i64) -> (i64, i64) {
    (date - received, date + 2_000 - sent)
}

/// Lines of Prometheus' text format that have no labels.
fn figures(text: &Bytes) -> BTreeMap<String, f64> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
        Some((name.to_owned(), value.trim().parse().ok()?)).filter(|_| plain)
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_without_labels_are_read() {
        let text = "# HELP a b\n# TYPE a gauge\nprocess_max_fds 1024\ngod_x{a=\"b c\"} 3\nbad\ngod_y 1.5e3\ngod_z NaN\n";
        let read = figures(&Bytes::from(text));
        assert_eq!(read.get("process_max_fds"), Some(&1024.0));
        assert_eq!(read.get("god_y"), Some(&1500.0));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_clock_is_told_from_this_one_as_far_as_a_date_tells() {
        let date = date_ms("Thu, 26 Nov 2026 04:00:10 GMT");
        assert_eq!(date.map(|date| date % 60_000), Some(10_000));
        // It showed the very second of ours: it may be nearly two ahead, and as far behind as the answer took.
        assert_eq!(ahead(10_000, 10_000, 10_040), (-40, 2_000));
        assert_eq!(date_ms("yesterday"), None);
    }
}
