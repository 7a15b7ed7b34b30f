//! `god export`: keys and values out to a file that `load` reads back to the same bytes.

use crate::{
    context::Context,
    failure::Failure,
    figures::{counted, short},
    output,
    progress::{Progress, rate},
    range::RangeArgs,
    records::{WriteFormat, write_entry},
};
use clap::Args;
use serde_json::json;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

/// Writes keys and values to a file
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god export all.tsv                             all of the keyspace
  god export --prefix user/ users.jsonl          some, as JSON
  god export | gzip > all.tsv.gz                 to stdout
  god export --value-format base64 all.tsv       values as base64 (load them with the same option)

What is written `god load` reads back to the same bytes, whatever they are: in tsv, tabs, line ends, backslashes,
control characters and bytes that are no text are written as escapes; in jsonl, keys and values that are no text as
key_base64 and value_base64. Times to expire are not written.
A file appears only once it is complete. Keys written meanwhile may be in it or not.")]
pub struct ExportArgs {
    /// The file; - or none is stdout
    file: Option<PathBuf>,
    #[command(flatten)]
    range: RangeArgs,
    /// How to write it (default: jsonl for a file of that name, else tsv)
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<WriteFormat>,
}

pub async fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let format = args.format.unwrap_or_else(|| format_of(file));
    let range = args.range.range(context.encodings().0)?;
    // Known, it gives the bar an end; a cluster that cannot count may still scan.
    let total = context.count(range.clone()).await.ok();
    // A bar between the lines of an export to the terminal would help nobody.
    let quiet = file.is_none() && io::stdout().is_terminal();
    let mut progress = Progress::new("exporting", total, quiet);
    let mut target = Target::open(file)?;
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

fn format_of(file: Option<&Path>) -> WriteFormat {
    match file.and_then(Path::extension).and_then(OsStr::to_str) {
        Some("jsonl" | "ndjson") => WriteFormat::Jsonl,
        _ => WriteFormat::Tsv,
    }
}

/// Stdout, or a file that takes its name once it is complete.
struct Target {
    out: BufWriter<Box<dyn Write>>,
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(file: Option<&Path>) -> Result<Target, Failure> {
        let Some(file) = file else {
            return Ok(Target { out: BufWriter::new(Box::new(io::stdout())), file: None });
        };
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match File::create(&partial) {
            Ok(out) => Ok(Target {
                out: BufWriter::with_capacity(256 << 10, Box::new(out)),
                file: Some((partial, file.to_owned())),
            }),
            Err(error) => Err(Failure::Usage(format!("cannot write {}: {error}", partial.display()))),
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        match &self.file {
            None => Failure::of_output(error),
            Some((partial, _)) => Failure::Usage(format!("cannot write {}: {error}", partial.display())),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.failed(&error))?;
        match &self.file {
            None => Ok(()),
            Some((partial, file)) => fs::rename(partial, file).map_err(|error| {
                Failure::Usage(format!("cannot name {} {}: {error}", partial.display(), file.display()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_has_its_name_only_once_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.tsv");
        let mut target = Target::open(Some(&file)).unwrap();
        target.out.write_all(b"k\tv\n").unwrap();
        assert!(!file.exists());
        target.finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"k\tv\n");
    }
}
