//! What a process takes, as the kernel counts it.

use rustix::process::Pid;
use std::{fs, io, path::Path};

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The most that was ever resident since the process began: its own and mapped files, such as the program's code
    /// (`VmHWM`).
    pub peak: u64,
    /// What is resident now and no file's (`RssAnon`).
    pub own: u64,
}

impl Memory {
    /// Of a process.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn of(pid: Pid) -> io::Result<Memory> {
        Memory::read(&fs::read_to_string(format!("/proc/{pid}/status"))?)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status lacks VmHWM or RssAnon")))
    }

    fn read(status: &str) -> Option<Memory> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
        };
        Some(Memory { peak: bytes("VmHWM")?, own: bytes("RssAnon")? })
    }
}

/// Descriptors, by what they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections, and doors.
    pub sockets: usize,
    /// Files that have a name.
    pub files: usize,
    /// Files that were deleted and are held all the same.
    pub deleted: usize,
    /// All else: pipes, what events are waited for with.
    pub others: usize,
}

impl Descriptors {
    /// Of a process.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn of(pid: Pid) -> io::Result<Descriptors> {
        let mut sum = Descriptors::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            // One that was closed meanwhile is none.
            if let Ok(target) = fs::read_link(entry?.path()) {
                sum.count(&target);
            }
        }
        Ok(sum)
    }

    fn count(&mut self, target: &Path) {
        let text = target.to_string_lossy();
        let kind = if text.starts_with("socket:") {
            &mut self.sockets
        } else if text.ends_with(" (deleted)") {
            &mut self.deleted
        } else if text.starts_with('/') {
            &mut self.files
        } else {
            &mut self.others
        };
        *kind += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_kernel_says() {
        let status = "Name:\tgod-node\nVmHWM:\t   1024 kB\nVmRSS:\t    900 kB\nRssAnon:\t     12 kB\nRssFile:\t 3 kB\n";
        assert_eq!(Memory::read(status), Some(Memory { peak: 1 << 20, own: 12 << 10 }));
        assert_eq!(Memory::read("Name:\tzombie\n"), None);
    }

    #[test]
    fn descriptors_are_told_apart() {
        let mut sum = Descriptors::default();
        for target in
            ["socket:[7]", "/data/1.sst", "/data/2.sst (deleted)", "anon_inode:[eventpoll]", "pipe:[1]"]
        {
            sum.count(Path::new(target));
        }
        assert_eq!(sum, Descriptors { sockets: 1, files: 1, deleted: 1, others: 2 });
    }

    #[test]
    fn an_open_file_of_this_process_is_counted() {
        let this = rustix::process::getpid();
        let before = Descriptors::of(this).unwrap();
        let held: Vec<_> = (0..40).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = Descriptors::of(this).unwrap();
        drop(held);
        // Other tests open a few at the same time.
        assert!(after.files >= before.files + 30, "{before:?}, then {after:?}");
        assert!(Memory::of(this).unwrap().peak > 0);
    }
}
