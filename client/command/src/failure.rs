//! How a command ends when it does not do what was asked: a sentence, and an exit code that scripts can trust.

use god_client::{Error, Reason};
use std::{fmt, io, process::ExitCode, time::Duration};

/// The table of exit codes, as `--help` prints it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, or found
  1  not found
  2  the command, or a file it names, is wrong
  3  refused: nothing was written
  4  outcome unknown: the write may surface later
  5  no server could be reached
  6  god doctor found a warning
  7  god doctor found a problem
  130  interrupted by Ctrl-C; what was loaded is said";

/// What a node says when it refuses.
#[derive(Debug)]
pub struct Rejection {
    pub reason: Reason,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// There is no such key.
    NotFound(String),
    /// The command line, or a file it names, is wrong.
    Usage(String),
    /// It could not be done, and nothing was written.
    Refused(String),
    /// A node refused, and says why; nothing was written.
    Rejected(Rejection),
    /// Fewer replicas than asked are known to have the write.
    Unknown(String),
    /// Nobody answered.
    Unreachable(String),
    /// Whoever read the output went away: the end of `god scan | head`, and no failure.
    OutputClosed,
    /// Somebody pressed Ctrl-C; what was acknowledged is said.
    Interrupted(String),
    /// `god doctor` found something, and has said it.
    Found {
        /// Worse than a warning.
        problem: bool,
    },
}

impl Failure {
    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::OutputClosed => 0,
            Failure::NotFound(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Refused(_) | Failure::Rejected(_) => 3,
            Failure::Unknown(_) => 4,
            Failure::Unreachable(_) => 5,
            // What shells end with for SIGINT.
            Failure::Interrupted(_) => 130,
            Failure::Found { problem } => 6 + u8::from(*problem),
        })
    }

    /// Printing failed.
    pub fn of_output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Usage(format!("cannot write the output: {error}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Invalid(text) => Failure::Usage(text),
            Error::Refused { reason, message, retry_after } => {
                Failure::Rejected(Rejection { reason, message, retry_after })
            }
            unknown @ Error::Unknown { .. } => Failure::Unknown(unknown.to_string()),
            Error::Unreachable(text) => Failure::Unreachable(text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OutputClosed | Failure::Found { .. } => Ok(()),
            Failure::Rejected(rejected) => f.write_str(&sentence(rejected)),
            Failure::NotFound(text)
            | Failure::Usage(text)
            | Failure::Refused(text)
            | Failure::Unknown(text)
            | Failure::Interrupted(text)
            | Failure::Unreachable(text) => f.write_str(text),
        }
    }
}

/// A refusal with the way out, where there is one to name. It is named once: a hint in brackets that the node ends with
/// gives way to the one here, which tells more; one in its sentence stays, and is enough.
fn sentence(rejected: &Rejection) -> String {
    let message = match rejected.message.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
        Some((before, hint)) if hint.contains("`god ") => before,
        _ => &rejected.message,
    };
    if message.contains("`god ") {
        return format!("refused: {message}");
    }
    let way_out = match rejected.reason {
        Reason::NoSuchKeyspace => {
            "list them with: god keyspace list; make one with: god keyspace create NAME"
        }
        Reason::Unavailable => "see: god status",
        Reason::Busy | Reason::Stale | Reason::Deadline => match rejected.retry_after {
            Some(after) => {
                return format!("refused: {message} (try again in {} ms)", after.as_millis());
            }
            None => "try again",
        },
        _ => return format!("refused: {}", rejected.message),
    };
    format!("refused: {message} ({way_out})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_way_out() {
        let rejected = |reason: Reason, retry_after_ms: u64| {
            let message = "keyspace x is not there".to_owned();
            let retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms));
            Failure::Rejected(Rejection { reason, message, retry_after }).to_string()
        };
        assert!(rejected(Reason::NoSuchKeyspace, 0).contains("god keyspace create"));
        assert!(rejected(Reason::Busy, 40).ends_with("(try again in 40 ms)"));
        assert_eq!(rejected(Reason::Invalid, 0), "refused: keyspace x is not there");
    }

    #[test]
    fn a_way_out_is_named_once() {
        let said = |reason: Reason, message: &str| {
            Failure::Rejected(Rejection { reason, message: message.to_owned(), retry_after: None })
                .to_string()
        };
        assert_eq!(
            said(Reason::NoSuchKeyspace, "there is no keyspace \"x\" (see `god keyspace list`)"),
            "refused: there is no keyspace \"x\" (list them with: god keyspace list; make one with: god keyspace create \
             NAME)"
        );
        assert_eq!(
            said(Reason::NotInitialised, "this node is in no cluster yet; run `god init` on one node"),
            "refused: this node is in no cluster yet; run `god init` on one node"
        );
        assert_eq!(
            said(Reason::Unavailable, "too few replicas (2 of 3)"),
            "refused: too few replicas (2 of 3) (see: god status)"
        );
        // Why a node is in no cluster it knows best: one that left is not to be founded.
        assert_eq!(said(Reason::NotInitialised, "this node has left"), "refused: this node has left");
        // What has no way out here keeps the node's.
        assert_eq!(said(Reason::Invalid, "no (see `god x`)"), "refused: no (see `god x`)");
    }
}
