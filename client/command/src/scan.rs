//! `god scan`: keys in order, as they come.

use crate::{
    context::Context,
    failure::Failure,
    options::Output,
    output,
    range::RangeArgs,
    records::{WriteFormat, entry_json, write_entry},
};
use clap::Args;
use god_client::Entry;
use std::{
    io::{self, BufWriter, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

/// Prints keys and values in order
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god scan --limit 10                            the first ten
  god scan --reverse --limit 10                  the last ten
  god scan --prefix user/                        keys that begin so (ordered keyspaces)
  god scan --from b --before d --keys-only
  god scan -o json | jq -r .key                  one JSON object a line

In a hashed keyspace keys come in the order of their hash. Lines are key<TAB>value, with tabs, line ends and bytes that
are no text as escapes: what `god load` reads.")]
pub struct ScanArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// From the last key down
    #[arg(short, long)]
    reverse: bool,
    /// At most so many keys
    #[arg(short, long, value_name = "N")]
    limit: Option<u64>,
    /// Without values
    #[arg(long)]
    keys_only: bool,
}

pub async fn run(context: &Context, args: &ScanArgs) -> Result<(), Failure> {
    let encodings = context.encodings();
    let mut scan = context.scan(args.range.range(encodings.0)?);
    if args.reverse {
        scan = scan.reverse();
    }
    if args.keys_only {
        scan = scan.keys_only();
    }
    if let Some(limit) = args.limit {
        scan = scan.limit(limit);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    while let Some(entries) = scan.next_page().await? {
        for entry in &entries {
            let value = (!args.keys_only).then_some(&entry.value[..]);
            if context.output() == Output::Table {
                write_entry(&mut out, WriteFormat::Tsv, encodings, &entry.key, value)
                    .map_err(|error| Failure::of_output(&error))?;
                continue;
            }
            output::item(&mut out, context.output(), json(context, entry, value))?;
        }
        // Whoever reads along sees each page as it comes.
        out.flush().map_err(|error| Failure::of_output(&error))?;
    }
    Ok(())
}

/// An entry as a JSON object.
pub fn json(context: &Context, entry: &Entry, value: Option<&[u8]>) -> serde_json::Value {
    let mut json = entry_json(context.encodings(), &entry.key, value);
    json.insert("version".to_owned(), entry.version.to_string().into());
    if let Some(at) = entry.expires_at {
        json.insert("expires_at_ms".to_owned(), millis(at).into());
    }
    json.into()
}

/// Milliseconds since 1970.
pub fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
