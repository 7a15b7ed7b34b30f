//! A process in a pseudo-terminal, and what a person would see of it.

// Not every test uses all of it.
#![allow(dead_code)]

use pty_process::{
    Size,
    blocking::{self, Pty},
};
use std::{
    io::{Read as _, Write as _},
    num::NonZeroU16,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long anything may take that a test waits for. Far more than it takes: a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What the process is told of the terminal's size.
pub const ROWS: u16 = 40;
/// Its width in characters.
pub const COLUMNS: u16 = 80;
/// How wide the screen is that is looked at: a line beyond [`COLUMNS`] is seen as one.
const SEEN: u16 = 400;

/// What came out of the terminal.
struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
    widest: usize,
    ended: bool,
}

/// A terminal of 80 columns with a process in it, whose controlling terminal it is.
pub struct Terminal {
    child: Child,
    pty: Option<Arc<Pty>>,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts it. Descriptors that the command names itself are no terminal.
    pub fn start(command: blocking::Command) -> Terminal {
        let (pty, pts) = blocking::open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let child = command.spawn(pts).unwrap();
        let rows = NonZeroU16::new(ROWS).unwrap();
        let parser = vt100::Parser::new(rows, NonZeroU16::new(SEEN).unwrap(), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, raw: Vec::new(), widest: 0, ended: false }));
        let (pty, watched) = (Arc::new(pty), Arc::clone(&seen));
        let from = Arc::clone(&pty);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error once no process has the terminal open.
            while let Ok(count @ 1..) = (&*from).read(&mut buffer) {
                let mut seen = watched.lock().unwrap();
                seen.raw.extend_from_slice(&buffer[..count]);
                // Byte by byte: what stands on the screen between two reads counts as well.
                for byte in &buffer[..count] {
                    seen.parser.process(&[*byte]);
                    let (row, _) = seen.parser.screen().cursor_position();
                    let line = seen.parser.screen().rows(0, SEEN).nth(row.into()).unwrap_or_default();
                    seen.widest = seen.widest.max(line.trim_end().chars().count());
                }
            }
            watched.lock().unwrap().ended = true;
        });
        Terminal { child, pty: Some(pty), seen, reader: Some(reader) }
    }

    /// Types.
    pub fn send(&self, keys: &str) {
        (&**self.pty.as_ref().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// All that was written to the terminal.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().raw).into_owned()
    }

    /// The most characters that a line ever had.
    pub fn widest(&self) -> usize {
        self.seen.lock().unwrap().widest
    }

    /// Waits until the screen is so.
    #[track_caller]
    pub fn shows(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}; the screen:\n{screen}");
            assert!(!self.seen.lock().unwrap().ended, "it ended before {what}; the screen:\n{screen}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end of the process and of what it writes.
    pub fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; the screen:\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that is run in a terminal, without variables of this process but the path.
pub fn command(program: &str) -> blocking::Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command.env("TERM", "xterm-256color");
    command.into()
}
