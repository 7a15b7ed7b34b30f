//! `god put`: writes a key.

use crate::{context::Context, failure::Failure, figures::counted, input, output};
use clap::Args;
use god_client::Written;
use serde_json::{Value, json};
use std::{ffi::OsString, time::Duration};

/// Writes a key
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god put colour blue
  god put --ttl 1h session/7 alice
  god put picture - < picture.png                       the value from stdin
  god put --key-format hex 00ff - --consistency all
  god put -- -5 minus                                   a key that begins with '-'

Exit codes: 0 written, 3 refused (nothing was written), 4 unknown (it may surface later), 5 unreachable.")]
pub struct PutArgs {
    /// The key; - reads it from stdin
    key: OsString,
    /// The value; - reads it from stdin
    value: OsString,
    /// Forget it after this long
    #[arg(long, value_name = "TIME", value_parser = god_proto::time::parse_ttl)]
    ttl: Option<Duration>,
}

pub async fn run(context: &Context, args: &PutArgs) -> Result<(), Failure> {
    if args.key == "-" && args.value == "-" {
        return Err(Failure::Usage(
            "only one of key and value can come from stdin (for many keys: god load -)".to_owned(),
        ));
    }
    let (key_format, value_format) = context.encodings();
    let key = input::key(&args.key, key_format)?;
    let value = input::value(&args.value, value_format)?;
    let written = match args.ttl {
        None => context.put(key, value).await?,
        Some(ttl) => context.put_with_ttl(key, value, ttl).await?,
    };
    output::report(context.output(), &written_json(&written), || written_text("written", &written));
    Ok(())
}

/// `written on 2 replicas, version 1763900000000.0@1`.
pub fn written_text(done: &str, written: &Written) -> String {
    format!("{done} on {}, version {}", counted(written.acks.into(), "replica"), written.version)
}

pub fn written_json(written: &Written) -> Value {
    json!({ "version": written.version.to_string(), "acks": written.acks })
}
