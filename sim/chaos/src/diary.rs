//! What was done when, for people.

use parking_lot::Mutex;
use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// A log of the run, on the screen and in a file. Its clock is that of the histories too.
pub struct Diary {
    began: Instant,
    file: Mutex<File>,
}

impl Diary {
    /// Begins one, and its clock.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn begin(path: &Path) -> io::Result<Diary> {
        Ok(Diary { began: Instant::now(), file: Mutex::new(File::create(path)?) })
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The same in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now().as_micros() as u64
    }

    /// Notes what happens.
    pub fn note(&self, what: impl fmt::Display) {
        let line = format!("{:9.3}  {what}", self.now().as_secs_f64());
        println!("{line}");
        // That the screen has it is enough.
        let _ = writeln!(self.file.lock(), "{line}");
    }
}
