//! Manual pages: what clap knows, and what stands after the options in `--help`, with its headings as sections.

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use std::io;

/// A manual page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The file's name, as in `god-put.1`.
    pub file: String,
    /// Its text, for troff's `man` macros.
    pub text: Vec<u8>,
}

/// The pages of a command and of all commands below it that are not hidden.
///
/// # Errors
/// None but of writing to memory.
pub fn pages(command: Command, section: &str, manual: &str) -> io::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let about = About { section, manual, source: source(&command), top: command.get_name().to_owned() };
    let mut all = Vec::new();
    about.add(&command, &mut all)?;
    Ok(all)
}

fn source(command: &Command) -> String {
    format!("GoD {}", command.get_version().unwrap_or_default())
}

/// What all pages of a program have in common.
struct About<'a> {
    section: &'a str,
    manual: &'a str,
    source: String,
    top: String,
}

impl About<'_> {
    fn add(&self, command: &Command, all: &mut Vec<Page>) -> io::Result<()> {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let man = Man::new(command.clone()).section(self.section);
        // `Man` leaves an empty date out, and the rest would stand in its place. There is none: the same sources make
        // the same page on any day.
        let (section, source, manual) = (self.section, &self.source, self.manual);
        let mut text = format!(".TH \"{name}\" \"{section}\" \"\" \"{source}\" \"{manual}\"\n").into_bytes();
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if command.get_subcommands().any(|below| !below.is_hide_set()) {
            man.render_subcommands_section(&mut text)?;
        }
        let mut rest = Roff::default();
        if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
            after_help(&mut rest, &after.to_string());
        }
        if name != self.top {
            rest.control("SH", ["SEE ALSO"]);
            rest.text([roman(format!("{}({})", self.top, self.section))]);
        }
        rest.to_writer(&mut text)?;
        all.push(Page { file: format!("{name}.{}", self.section), text });
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            self.add(below, all)?;
        }
        Ok(())
    }
}

/// What is written after the options: a line that ends with a colon before lines that are set in is a heading, lines
/// that are set in are shown as they are, and the rest is running text.
fn after_help(page: &mut Roff, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let set_in = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("  "));
    let (mut shown, mut notes, mut parted) = (false, false, false);
    for (at, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            parted = true;
            continue;
        }
        if shown && !set_in(Some(line)) {
            page.control("fi", []);
            shown = false;
        }
        let before = at.checked_sub(1).and_then(|at| lines.get(at));
        if set_in(Some(line)) {
            if !shown {
                page.control("nf", []);
                shown = true;
            }
        } else if line.ends_with(':')
            && set_in(lines.get(at + 1))
            && before.is_none_or(|line| line.is_empty())
        {
            page.control("SH", [line.trim_end_matches(':').to_uppercase().as_str()]);
            (notes, parted) = (false, false);
            continue;
        } else if !notes {
            page.control("SH", ["NOTES"]);
            notes = true;
        } else if parted {
            page.control("PP", []);
        }
        parted = false;
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    if shown {
        page.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        let put = Command::new("put").about("Writes a key").arg(Arg::new("key").required(true)).after_help(
            "Examples:\n  god put 'a' -x\n  .hidden\n\nOnce more.\nAnd again:\n  god get a\n\nExit codes:\n  0  done",
        );
        let hidden = Command::new("secret").hide(true);
        Command::new("god").version("1.2.3").about("Reads and writes").subcommands([put, hidden])
    }

    fn text(page: &Page) -> String {
        String::from_utf8(page.text.clone()).unwrap()
    }

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let pages = pages(command(), "1", "GoD").unwrap();
        let files: Vec<&str> = pages.iter().map(|page| &*page.file).collect();
        assert_eq!(files, ["god.1", "god-put.1"]);
        assert!(
            text(&pages[0]).contains(".TH \"god\" \"1\" \"\" \"GoD 1.2.3\" \"GoD\"\n"),
            "{}",
            text(&pages[0])
        );
        assert!(text(&pages[1]).contains(".SH \"SEE ALSO\"\ngod(1)\n"), "{}", text(&pages[1]));
    }

    #[test]
    fn examples_are_shown_line_by_line_and_text_is_set() {
        let put = text(&pages(command(), "1", "GoD").unwrap()[1]);
        let after = put.split(".SH EXAMPLES\n").nth(1).unwrap();
        assert_eq!(
            after.split(".SH \"SEE ALSO\"").next().unwrap(),
            ".nf\ngod put \\*(Aqa\\*(Aq \\-x\n\\&.hidden\n.fi\n.SH NOTES\nOnce more.\nAnd again:\n.nf\ngod get a\n.fi\n\
             .SH \"EXIT CODES\"\n.nf\n0  done\n.fi\n"
        );
    }
}
