//! `god load`: a file's keys and values, many at once, with a bar.

mod create;
mod feed;
mod turns;
mod write;

use crate::{
    context::Context,
    failure::Failure,
    figures::{counted, short},
    options::Output,
    output,
    progress::rate,
    records::Format,
};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};
use write::LoadSummary;

/// Writes in flight at once, where the command says nothing else.
const IN_FLIGHT: u32 = 512;

/// Loads keys and values from a file
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god load pairs.tsv                                       key<TAB>value lines
  god load -k names --create ordered UnicodeData.txt       the keyspace is made first
  generate | god load --format jsonl -                     {\"key\": …, \"value\": …} lines from stdin
  god export -k a | god load -k b -                        from one keyspace to another

Text is UTF-8; \\t \\n \\r \\\\ and \\xNN stand for the bytes they name, and --raw takes lines as they
are. A value in JSON that is no string is kept as its JSON text. Of Unicode's UnicodeData.txt each
character becomes \"NAME U+CODE\" with its line as the value.

Bad lines are told by their number and left out; the rest is loaded. Of lines with the same key the
last one wins. Loading the same file again is safe.
Ctrl-C ends it once the writes that are under way have ended, and says how many keys were loaded.
Exit codes: 0 all loaded, 2 the file cannot be read or is not UTF-8, 3 a line was bad or refused,
4 an outcome is unknown, 130 interrupted.")]
pub struct LoadArgs {
    /// The file; - is stdin
    file: PathBuf,
    /// What the file is
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
    /// Text has no escapes: take lines as they are
    #[arg(long)]
    raw: bool,
    /// Make the keyspace first, if it is not there
    #[arg(long, value_enum, value_name = "ORDER")]
    create: Option<CreateAs>,
    /// Writes in flight at once, up to 65,536
    #[arg(
        long,
        value_name = "N",
        default_value_t = IN_FLIGHT,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    in_flight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CreateAs {
    /// Keys are spread by their hash
    Hashed,
    /// Keys are kept in the order of their bytes; it is cut so that the file's keys are spread evenly
    Ordered,
}

pub async fn run(context: &Context, args: &LoadArgs) -> Result<(), Failure> {
    let summary = load(context, args).await?;
    let LoadSummary { loaded, bad_lines, refused, unknown, took } = summary;
    let per_second = rate(loaded, took);
    let json = json!({
        "loaded": loaded, "bad_lines": bad_lines, "refused": refused, "unknown": unknown,
        "seconds": took.as_secs_f64(), "keys_per_second": per_second,
    });
    output::report(context.output(), &json, || {
        format!("loaded {} in {:.1} s ({}/s)", counted(loaded, "key"), took.as_secs_f64(), short(per_second))
    });
    summary.verdict()
}

/// For `god dev`: into an ordered keyspace that is made if it is not there. Gives the number of keys.
pub async fn load_for_dev(context: &Context, file: &Path) -> Result<u64, Failure> {
    let args = LoadArgs {
        file: file.to_owned(),
        format: Format::Auto,
        raw: false,
        create: Some(CreateAs::Ordered),
        in_flight: IN_FLIGHT,
    };
    let summary = load(context, &args).await?;
    summary.verdict()?;
    let took = summary.took.as_secs_f64();
    output::say(&format!(
        "loaded {} in {took:.1} s ({}/s)",
        counted(summary.loaded, "key"),
        short(rate(summary.loaded, summary.took))
    ));
    Ok(summary.loaded)
}

async fn load(context: &Context, args: &LoadArgs) -> Result<LoadSummary, Failure> {
    let source = feed::Source::new(&args.file, args.format, args.raw, context.encodings());
    if let Some(order) = args.create {
        create::create(context, &source, order).await?;
    }
    let quiet = context.output() != Output::Table;
    write::write(context, source, args.in_flight as usize, quiet).await
}
