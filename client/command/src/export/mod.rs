//! `god export`: keys and values out to a file that `load` reads back to the same bytes.

mod target;

use crate::{
    context::Context,
    failure::Failure,
    figures::{counted, short},
    options::Output,
    output,
    progress::{ProgressDisplay, rate},
    range::RangeArgs,
    records::{FileFormat, WriteFormat, write_entry},
};
use clap::Args;
use serde_json::json;
use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};
use target::ExportFile;

/// Writes keys and values to a file
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god export all.tsv                             all of the keyspace
  god export --prefix user/ users.jsonl          some, as JSON
  god export | gzip > all.tsv.gz                 to stdout
  god export --value-format base64 all.tsv       values as base64 (load them with the same option)

What is written `god load` reads back to the same bytes, whatever they are: in tsv, tabs, line ends,
backslashes, control characters and bytes that are no text are written as escapes; in jsonl, keys
and values that are no text as key_base64 and value_base64. Times to expire are not written.
A file appears only once it is complete, with the mode of the one it replaces; of a link, what it
leads to is replaced; a pipe or a device is written into. Keys written meanwhile may be in it or
not.")]
pub struct ExportArgs {
    /// The file; - or none is stdout
    file: Option<PathBuf>,
    #[command(flatten)]
    range: RangeArgs,
    /// How to write it (default: jsonl for a file of that name and with -o json on stdout, else tsv)
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<WriteFormat>,
}

pub async fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let format = match args.format {
        Some(format) => format,
        None => format_of(file, context.output())?,
    };
    let file = file.filter(|file| !target::is_stdout(file));
    let range = args.range.range(context.encodings().0)?;
    // Known, it gives the bar an end; a cluster that cannot count may still scan.
    let total = context.count(range.clone()).await.ok();
    // A bar between the lines of an export to the terminal would help nobody.
    let quiet = file.is_none() && io::stdout().is_terminal();
    let mut progress = ProgressDisplay::new("exporting", total, quiet);
    let mut target = ExportFile::open(file)?;
    let mut scan = context.scan(range);
    let mut keys = 0;
    while let Some(entries) = scan.next_page().await? {
        for entry in &entries {
            write_entry(&mut target.out, format, context.encodings(), &entry.key, Some(&entry.value))
                .map_err(|error| target.failed(&error))?;
        }
        keys += entries.len() as u64;
        progress.at(keys, keys);
    }
    target.finish()?;
    let took = progress.finish();
    let Some(file) = file else { return Ok(()) };
    let json = json!({ "exported": keys, "file": file, "seconds": took.as_secs_f64() });
    output::report(context.output(), &json, || {
        format!(
            "exported {} to {} in {:.1} s ({}/s)",
            counted(keys, "key"),
            file.display(),
            took.as_secs_f64(),
            short(rate(keys, took))
        )
    });
    Ok(())
}

/// Of a file its name tells; on stdout, how answers are printed.
fn format_of(file: Option<&Path>, output: Output) -> Result<WriteFormat, Failure> {
    match (file, output) {
        (Some(file), _) if FileFormat::of_name(file) == Some(FileFormat::Jsonl) => Ok(WriteFormat::Jsonl),
        (Some(_), _) | (None, Output::Table) => Ok(WriteFormat::Tsv),
        (None, Output::Json) => Ok(WriteFormat::Jsonl),
        (None, Output::Yaml) => Err(Failure::Usage(
            "an export has no form in YAML; say --format tsv or --format jsonl, which can be loaded"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_written_in_the_format_that_its_name_is_read_in() {
        for name in ["a.jsonl", "a.JSONL", "b/a.NdJson"] {
            assert_eq!(
                format_of(Some(Path::new(name)), Output::Table).unwrap(),
                WriteFormat::Jsonl,
                "{name}"
            );
        }
        for name in ["a.tsv", "a.TAB", "a", "jsonl", ".jsonl", "a.jsonl.tsv"] {
            assert_eq!(format_of(Some(Path::new(name)), Output::Json).unwrap(), WriteFormat::Tsv, "{name}");
        }
    }

    #[test]
    fn on_stdout_an_export_is_what_answers_are() {
        assert_eq!(format_of(None, Output::Table).unwrap(), WriteFormat::Tsv);
        assert_eq!(format_of(None, Output::Json).unwrap(), WriteFormat::Jsonl);
        assert!(format_of(None, Output::Yaml).unwrap_err().to_string().contains("--format"));
    }
}
