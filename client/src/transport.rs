//! Connections, and what their failures mean.

use crate::{Error, error::cause};
use god_proto::v1::Reason;
use std::time::Duration;
use tonic::{Code, ConnectError, Status, transport::Endpoint};

/// Room for answers on their way, of one call and of a whole connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A connection that is silent is asked whether it lives after so long, and must say so within the other.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to connect to a node.
pub(crate) fn endpoint(address: &str, connect_timeout: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is not an address: {}", cause(&error)))?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// What a failed call says of the node and of the call.
pub(crate) enum Failed {
    /// The node refused the call as it is; another one would as well.
    Refused(Error),
    /// It never got there.
    NotSent(String),
    /// It may have got there.
    Open(String),
}

/// Reads a status that is no answer.
pub(crate) fn failed(address: &str, status: &Status) -> Failed {
    let reason = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Reason::Invalid,
        Code::ResourceExhausted => Reason::Busy,
        Code::PermissionDenied | Code::Unauthenticated => Reason::Unspecified,
        _ => {
            let text = format!("{address} does not answer: {}", why(status));
            return if never_left(status) { Failed::NotSent(text) } else { Failed::Open(text) };
        }
    };
    let message = format!("{address} refused the call: {}", status.message());
    Failed::Refused(Error::Refused { reason, message, retry_after: None })
}

/// The cause, where there is one: the message of a transport says only that it is one.
fn why(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), cause)
}

fn never_left(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}
