//! How far long work is: a bar on a terminal, else a line now and then. Always on stderr.

use crate::{
    figures::{grouped, short},
    output::say,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the rate for the bar.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// A bar, or lines.
pub struct ProgressDisplay {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: Option<u64>,
    began: Instant,
    shown: Instant,
    quiet: bool,
}

impl ProgressDisplay {
    /// `what` is done, as in `loading`; `total` in whatever unit [`ProgressDisplay::at`] counts.
    pub fn new(what: &'static str, total: Option<u64>, quiet: bool) -> ProgressDisplay {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| bar(what, total));
        let now = Instant::now();
        ProgressDisplay { bar, what, total, began: now, shown: now, quiet }
    }

    /// `done` of the total is done, which are so many keys. Cheap: shows something only now and then.
    pub fn at(&mut self, done: u64, keys: u64) {
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        if self.quiet || self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let rate = rate(keys, self.began.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{} keys, {}/s", grouped(keys), short(rate)));
            return;
        }
        let mut line = format!("{}: {} keys, {}/s", self.what, grouped(keys), short(rate));
        if let Some(total) = self.total.filter(|total| *total > 0 && done > 0) {
            let share = (done as f64 / total as f64).min(1.0);
            let left = self.began.elapsed().mul_f64((1.0 - share) / share);
            line += &format!(", {:.0} %, {} s left", share * 100.0, left.as_secs());
        }
        say(&line);
    }

    /// Says something above the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Takes the bar away; gives how long it all took.
    pub fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.began.elapsed()
    }
}

/// Keys a second.
pub fn rate(keys: u64, took: Duration) -> f64 {
    keys as f64 / took.as_secs_f64().max(0.001)
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{prefix} [{bar:30}] {percent:>3} %  {msg}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {msg}  {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}
