//! `god scan`: keys in order, as they come.

use crate::{
    cli::Output,
    context::Context,
    failure::Failure,
    output,
    put::version_text,
    range::RangeArgs,
    records::{WriteFormat, entry_json, write_entry},
};
use bytes::Bytes;
use clap::Args;
use god_proto::{
    MAX_PAGE,
    v1::{KeyRange, KeyValue},
};
use std::io::{self, BufWriter, Write as _};

/// Keys on a page where the command sets no lower limit.
const PAGE: u32 = 1_000;

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

/// A scan, page by page.
pub struct Pages<'a> {
    pub context: &'a Context,
    pub range: KeyRange,
    pub reverse: bool,
    pub keys_only: bool,
    /// Keys still wanted; `None`: all.
    pub left: Option<u64>,
    continuation: Option<Bytes>,
}

impl<'a> Pages<'a> {
    pub fn new(context: &'a Context, range: KeyRange) -> Pages<'a> {
        Pages {
            context,
            range,
            reverse: false,
            keys_only: false,
            left: None,
            continuation: Some(Bytes::new()),
        }
    }

    /// The next page; `None` at the end. A page may be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Failure> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some(continuation) = self.continuation.take() else { return Ok(None) };
        let limit = self.left.map_or(PAGE, |left| left.min(PAGE.min(MAX_PAGE).into()) as u32);
        let mut page =
            self.context.page(self.range.clone(), self.reverse, limit, continuation, self.keys_only).await?;
        if let Some(left) = &mut self.left {
            page.entries.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= page.entries.len() as u64;
        }
        self.continuation = Some(page.continuation).filter(|continuation| !continuation.is_empty());
        Ok(Some(page.entries))
    }
}

pub async fn run(context: &Context, args: &ScanArgs) -> Result<(), Failure> {
    let encodings = context.encodings();
    let mut pages = Pages::new(context, args.range.range(encodings.0)?);
    pages.reverse = args.reverse;
    pages.keys_only = args.keys_only;
    pages.left = args.limit;
    let mut out = BufWriter::new(io::stdout().lock());
    while let Some(entries) = pages.next().await? {
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
pub fn json(context: &Context, entry: &KeyValue, value: Option<&[u8]>) -> serde_json::Value {
    let mut json = entry_json(context.encodings(), &entry.key, value);
    if let Some(version) = &entry.version {
        json.insert("version".to_owned(), version_text(version).into());
    }
    if entry.expires_at_ms > 0 {
        json.insert("expires_at_ms".to_owned(), entry.expires_at_ms.into());
    }
    json.into()
}
