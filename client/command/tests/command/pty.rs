//! The `god` command in a terminal of 80 columns: what a person sees.

use crate::{
    fake::{self, Fake},
    terminal::{self, COLUMNS, Terminal},
};
use pty_process::blocking::Command;
use std::io::{Write as _, pipe};

fn god(fake: &Fake, args: &[&str]) -> Command {
    let command = terminal::command(env!("CARGO_BIN_EXE_god"));
    command.args(args).env("GOD_SERVER", fake.address.to_string())
}

#[test]
fn colours_are_for_terminals_unless_they_are_not_wanted() {
    let fake = fake::start();
    let run = |no_colour: Option<&str>| {
        let mut command = god(&fake, &["status"]);
        if let Some(value) = no_colour {
            command = command.env("NO_COLOR", value);
        }
        let mut terminal = Terminal::start(command);
        assert!(terminal.ends().success());
        assert!(terminal.screen().contains("1 node up"), "{}", terminal.screen());
        terminal.raw()
    };
    assert!(run(None).contains("\x1b[38;5;10m") || run(None).contains("\x1b[32m"), "{:?}", run(None));
    // As no-color.org says: an empty one does not count.
    assert!(run(Some("")).contains('\x1b'));
    assert!(!run(Some("1")).contains('\x1b'), "{:?}", run(Some("1")));
}

/// A load that reads of a pipe, which the test holds open, and has written so many keys.
fn loading(fake: &Fake, keys: usize) -> (Terminal, std::io::PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let terminal = Terminal::start(god(fake, &["load", "-"]).stdin(reader));
    for key in 0..keys {
        writeln!(writer, "key {key}\tvalue").unwrap();
    }
    let deadline = std::time::Instant::now() + terminal::PATIENCE;
    while fake.pairs().len() < keys {
        assert!(
            std::time::Instant::now() < deadline,
            "{} of {keys}: {}",
            fake.pairs().len(),
            terminal.screen()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    (terminal, writer)
}

#[test]
fn a_load_shows_how_far_it_is_and_leaves_the_screen_clean() {
    let fake = fake::start();
    let (mut terminal, mut writer) = loading(&fake, 1_000);
    // A bar is drawn anew a few times a second, when something was written.
    let mut key = 0;
    loop {
        key += 1;
        writeln!(writer, "later {key}\tvalue").unwrap();
        if terminal.screen().contains("loading") && terminal.screen().contains("keys,") {
            break;
        }
        assert!(key < 12_000, "no bar: {}", terminal.screen());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(writer);
    assert!(terminal.ends().success());
    let screen = terminal.screen();
    assert!(screen.contains("loaded 1,") && !screen.contains("loading"), "{screen}");
    assert!(terminal.widest() <= COLUMNS.into(), "{} columns", terminal.widest());
}

#[test]
fn ctrl_c_in_a_load_tells_what_was_acknowledged() {
    let fake = fake::start();
    let (mut terminal, writer) = loading(&fake, 500);
    terminal.send("\x03");
    let ended = terminal.ends();
    let screen = terminal.screen();
    assert_eq!(ended.code(), Some(130), "{screen}");
    assert!(screen.contains("before that 500 keys had been loaded"), "{screen}");
    // What the terminal shows of the key itself stands behind the bar, and goes with it.
    assert!(screen.lines().all(|line| line.chars().count() <= COLUMNS.into()), "{screen}");
    drop(writer);
}

#[test]
fn a_second_ctrl_c_does_not_wait_and_says_what_is_unknown() {
    let fake = fake::start();
    let (mut terminal, mut writer) = loading(&fake, 10);
    fake.knobs.hang(true);
    let before = fake.knobs.frames.load(std::sync::atomic::Ordering::SeqCst);
    writer.write_all(b"open 1\tv\nopen 2\tv\n").unwrap();
    let deadline = std::time::Instant::now() + terminal::PATIENCE;
    while fake.knobs.frames.load(std::sync::atomic::Ordering::SeqCst) == before {
        assert!(std::time::Instant::now() < deadline, "{}", terminal.screen());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    terminal.send("\x03");
    terminal.shows("that it stops", |screen| screen.contains("stopping"));
    terminal.send("\x03");
    let ended = terminal.ends();
    let screen = terminal.screen();
    assert_eq!(ended.code(), Some(4), "{screen}");
    assert!(screen.contains("10 keys had been loaded") && screen.contains("is unknown"), "{screen}");
    drop(writer);
}

#[test]
fn help_fits_the_terminal() {
    for args in
        [&["--help"][..], &["get", "--help"], &["ring", "--help"], &["load", "--help"], &["doctor", "--help"]]
    {
        let fake = fake::start();
        let mut terminal = Terminal::start(god(&fake, args));
        assert!(terminal.ends().success());
        assert!(terminal.widest() <= COLUMNS.into(), "{args:?}: {} columns", terminal.widest());
    }
}
