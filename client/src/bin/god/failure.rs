//! How a command ends when it does not do what was asked: a sentence, and an exit code that scripts can trust.

use god_proto::v1::{Reason, Rejected};
use std::{fmt, io, process::ExitCode};

/// The table of exit codes, as `--help` prints it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, or found
  1  not found
  2  the command, or a file it names, is wrong
  3  refused: nothing was written
  4  outcome unknown: the write may surface later
  5  no server could be reached";

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
    Rejected(Rejected),
    /// Fewer replicas than asked are known to have the write.
    Unknown(String),
    /// Nobody answered.
    Unreachable(String),
    /// Whoever read the output went away: the end of `god scan | head`, and no failure.
    OutputClosed,
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OutputClosed => Ok(()),
            Failure::Rejected(rejected) => f.write_str(&sentence(rejected)),
            Failure::NotFound(text)
            | Failure::Usage(text)
            | Failure::Refused(text)
            | Failure::Unknown(text)
            | Failure::Unreachable(text) => f.write_str(text),
        }
    }
}

/// A refusal with the way out, where there is one to name.
fn sentence(rejected: &Rejected) -> String {
    let way_out = match rejected.reason() {
        Reason::NoSuchKeyspace => {
            "list them with: god keyspace list; make one with: god keyspace create NAME"
        }
        Reason::NotInitialised => "found the cluster, once, with: god init",
        Reason::Unavailable => "see: god status",
        Reason::Busy if rejected.retry_after_ms > 0 => {
            return format!("refused: {} (try again in {} ms)", rejected.message, rejected.retry_after_ms);
        }
        Reason::Busy | Reason::Stale | Reason::Deadline => "try again",
        _ => return format!("refused: {}", rejected.message),
    };
    format!("refused: {} ({way_out})", rejected.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_way_out() {
        let rejected = |reason: Reason, retry_after_ms| {
            let message = "keyspace x is not there".to_owned();
            Failure::Rejected(Rejected { reason: reason.into(), message, retry_after_ms }).to_string()
        };
        assert!(rejected(Reason::NoSuchKeyspace, 0).contains("god keyspace create"));
        assert!(rejected(Reason::NotInitialised, 0).contains("god init"));
        assert!(rejected(Reason::Busy, 40).ends_with("(try again in 40 ms)"));
        assert_eq!(rejected(Reason::Invalid, 0), "refused: keyspace x is not there");
    }
}
