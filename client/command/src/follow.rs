//! Operations while they go on. For people on stderr: a bar each on a terminal, else a line whenever something is new.
//! For programs on stdout: a document whenever something is new.

use crate::{
    context::Context,
    failure::Failure,
    figures::{bytes, grouped},
    operation::{list_json, words},
    options::Output,
    output::{self, say},
};
use god_proto::v1::{ListOperationsReply, OperationStatus};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};
use tokio::time::sleep;

/// Between two looks at operations under way.
const LOOK: Duration = Duration::from_millis(500);
/// Arcs are few and of many sizes, so a bar counts parts of an arc.
const PARTS: u64 = 1_000;
const BAR: &str = "{prefix}\n  [{bar:40}] {percent:>3} %  {msg}";

/// Shows people what is under way, until nothing is, or the one operation has ended. An error when that was refused.
pub async fn follow(context: &Context, id: Option<&str>) -> Result<ListOperationsReply, Failure> {
    follow_in(context, id, Screen::new()).await
}

/// As [`follow`] of all that is under way, with a document for each change of it.
pub async fn follow_for_programs(context: &Context) -> Result<ListOperationsReply, Failure> {
    follow_in(context, None, Screen::Documents(context.output(), Value::Null)).await
}

async fn follow_in(
    context: &Context,
    id: Option<&str>,
    mut view: Screen,
) -> Result<ListOperationsReply, Failure> {
    loop {
        let list = context.client().list_operations().await?;
        let mine = |it: &&OperationStatus| {
            let operation = it.operation.as_ref();
            id.is_none_or(|id| operation.is_some_and(|operation| operation.id == id))
        };
        let under_way: Vec<&OperationStatus> = list.operations.iter().filter(mine).collect();
        view.show(list.epoch, &under_way)?;
        if under_way.is_empty() {
            // Of several of one name the latest.
            return match list.ended.iter().rev().find(|ended| Some(&*ended.id) == id) {
                Some(ended) if ended.cancelled && !ended.refused.is_empty() => Err(Failure::Refused(
                    format!("operation {} is not all undone: {}", ended.id, ended.refused),
                )),
                Some(ended) if !ended.refused.is_empty() => {
                    Err(Failure::Usage(format!("operation {} was refused: {}", ended.id, ended.refused)))
                }
                Some(ended) if ended.cancelled => {
                    Err(Failure::Refused(format!("operation {} was cancelled, and is undone", ended.id)))
                }
                _ => Ok(list),
            };
        }
        sleep(LOOK).await;
    }
}

/// What is on the screen.
enum Screen {
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    Lines(String),
    /// In which form, and the one that was printed last.
    Documents(Output, Value),
}

impl Screen {
    fn new() -> Screen {
        match io::stderr().is_terminal() {
            true => Screen::Bars(MultiProgress::new(), BTreeMap::new()),
            false => Screen::Lines(String::new()),
        }
    }

    fn show(&mut self, epoch: u64, under_way: &[&OperationStatus]) -> Result<(), Failure> {
        match self {
            Screen::Documents(form, shown) => {
                let document = list_json(epoch, under_way);
                if document != *shown && !under_way.is_empty() {
                    let mut out = io::stdout().lock();
                    output::item(&mut out, *form, document.clone())?;
                    out.flush().map_err(|error| Failure::of_output(&error))?;
                }
                *shown = document;
            }
            Screen::Lines(shown) => {
                let lines: Vec<String> = under_way.iter().map(|it| line(it)).collect();
                let lines = lines.join("\n");
                if lines != *shown && !lines.is_empty() {
                    say(&lines);
                }
                *shown = lines;
            }
            Screen::Bars(all, bars) => {
                bars.retain(|id, bar| {
                    let stays =
                        under_way.iter().any(|it| it.operation.as_ref().is_some_and(|it| it.id == *id));
                    if !stays {
                        bar.finish_and_clear();
                        all.remove(bar);
                    }
                    stays
                });
                for status in under_way {
                    let Some(operation) = &status.operation else { continue };
                    let bar = bars.entry(operation.id.clone()).or_insert_with(|| all.add(bar()));
                    bar.set_prefix(format!("{}: {}", operation.id, words(operation)));
                    bar.set_message(figures(status));
                    bar.set_position((share(status) * PARTS as f64) as u64);
                }
            }
        }
        Ok(())
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(PARTS);
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// How much is done, from 0 to 1: arcs that changed hands, and of those that do now what their new replicas have.
fn share(status: &OperationStatus) -> f64 {
    let moving = match status.entries_total {
        0 => 0.0,
        total => f64::from(status.arcs_moving) * (status.entries_done as f64 / total as f64).min(1.0),
    };
    (f64::from(status.arcs_done) + moving) / f64::from(status.arcs_total.max(1))
}

/// An operation and how far it is, in a line; nothing, where it is none.
pub fn line(status: &OperationStatus) -> String {
    let Some(operation) = &status.operation else { return String::new() };
    format!("{}: {}; {}", operation.id, words(operation), figures(status))
}

fn figures(status: &OperationStatus) -> String {
    let mut out = format!("{} of {} arcs", status.arcs_done, status.arcs_total);
    if status.arcs_moving > 0 {
        out += &format!(
            ", {} moving: {} of {} entries",
            status.arcs_moving,
            grouped(status.entries_done),
            grouped(status.entries_total)
        );
        if status.bytes_total > 0 {
            out += &format!(", {} of {}", bytes(status.bytes_done), bytes(status.bytes_total));
        }
    }
    if status.bytes_per_second > 0 {
        out += &format!(", {}/s", bytes(status.bytes_per_second));
    }
    if status.eta_ms > 0 {
        out += &format!(", about {} s left", status.eta_ms.div_ceil(1_000));
    }
    if !status.blocked.is_empty() {
        out += &format!("; blocked: {}", status.blocked);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_never_exceeds_what_there_is() {
        let mut status =
            OperationStatus { arcs_done: 1, arcs_total: 4, arcs_moving: 2, ..OperationStatus::default() };
        assert!((share(&status) - 0.25).abs() < 1e-9);
        (status.entries_done, status.entries_total) = (50, 100);
        assert!((share(&status) - 0.5).abs() < 1e-9);
        // Writes go on meanwhile: more may have come than were there.
        status.entries_done = 500;
        assert!((share(&status) - 0.75).abs() < 1e-9);
        assert!(share(&OperationStatus::default()).abs() < 1e-9);
    }

    #[test]
    fn why_it_does_not_go_on_is_said() {
        let status = OperationStatus {
            blocked: "node 3 is away".to_owned(),
            arcs_total: 2,
            ..OperationStatus::default()
        };
        assert_eq!(figures(&status), "0 of 2 arcs; blocked: node 3 is away");
    }
}
