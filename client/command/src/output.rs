//! Printing: tables for people, JSON and YAML for programs. Colour only on a terminal.

use crate::{failure::Failure, options::Output, yaml};
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};

/// Prints a document in the asked form; `table` makes the one for people.
pub fn document(output: Output, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table(),
        Output::Json => to_json(value)?,
        Output::Yaml => yaml::text(value),
    };
    line(&text)
}

/// Prints one of many documents: a line of JSON, or an item of a YAML list.
pub fn item(out: &mut impl io::Write, output: Output, value: Value) -> Result<(), Failure> {
    let text = match output {
        Output::Table | Output::Json => to_json(&value)? + "\n",
        Output::Yaml => yaml::text(&Value::Array(vec![value])) + "\n",
    };
    out.write_all(text.as_bytes()).map_err(|error| Failure::of_output(&error))
}

/// Prints a text and ends the line.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// Says something to whoever watches, on stderr. One that is closed or full changes nothing of the work, so that its
/// errors have nobody to be told to.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// What a command that writes tells of its work. The work is what counts: a reader who goes away, or a stdout that is
/// full, neither stops it nor changes what the command ends with.
#[derive(Debug, Default)]
pub struct WorkOutput {
    broken: bool,
}

impl WorkOutput {
    /// As [`document`], while stdout takes it.
    pub fn document(&mut self, output: Output, value: &Value, table: impl FnOnce() -> String) {
        if self.broken {
            return;
        }
        if let Err(failure) = document(output, value, table) {
            self.broken = true;
            if !matches!(failure, Failure::OutputClosed) {
                say(&format!("god: {failure} (the work is done all the same)"));
            }
        }
    }
}

/// The one document of a command that writes; see [`WorkOutput`].
pub fn report(output: Output, value: &Value, table: impl FnOnce() -> String) {
    WorkOutput::default().document(output, value, table);
}

fn to_json(value: &Value) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Usage(format!("cannot print as JSON: {error}")))
}

/// Whether to colour what goes to stdout.
pub fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table without lines. The columns named in `right` hold numbers.
pub fn table(header: &[&str], right: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    for (at, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

/// The widest a table should be, in characters.
pub const WIDTH: usize = 100;

/// The table as text, without blanks at the ends of its lines; closer together where it would be too wide.
pub fn render(mut table: Table) -> String {
    let columns = table.column_max_content_widths();
    let width: usize = columns.iter().map(|width| usize::from(*width) + 2).sum();
    if width > WIDTH + 2 {
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
    }
    table.trim_fmt()
}

/// A cell that is good, worth a look, or bad.
pub fn judged(text: &str, judgement: Judgement) -> Cell {
    let colour = match judgement {
        Judgement::Good => Color::Green,
        Judgement::Look => Color::Yellow,
        Judgement::Bad => Color::Red,
    };
    let cell = Cell::new(text);
    if coloured() { cell.fg(colour) } else { cell }
}

/// Text in its colour.
pub fn painted(text: &str, judgement: Judgement) -> String {
    let code = match judgement {
        Judgement::Good => 32,
        Judgement::Look => 33,
        Judgement::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// How a figure is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Good,
    Look,
    Bad,
}
