//! Where an export goes: stdout, a file that takes its name once it is complete, or whatever else bears the name.

use crate::failure::Failure;
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};
use tempfile::TempPath;

const BUFFER: usize = 256 << 10;
/// Links that are followed one after the other, as Linux does.
const MAX_LINKS: usize = 40;
/// Characters of a file's name that the name of the incomplete one begins with.
const NAME: usize = 50;

/// What is written to, buffered.
pub struct ExportFile {
    pub out: BufWriter<Box<dyn Write>>,
    destination: Destination,
}

enum Destination {
    Stdout,
    /// A pipe or a device: written into, as it can be nothing else.
    Open(PathBuf),
    /// A file of another name beside it, removed unless it is complete.
    Beside {
        partial: TempPath,
        file: PathBuf,
    },
}

/// Whether a name stands for what stdout is already: what is written there must not be written over.
pub fn is_stdout(file: &Path) -> bool {
    let Ok(named) = fs::metadata(file) else { return false };
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|stdout| (stdout.st_dev, stdout.st_ino) == (named.dev(), named.ino()))
}

impl ExportFile {
    /// Opens it; none: stdout. Nothing of a file that is there is changed yet.
    pub fn open(file: Option<&Path>) -> Result<ExportFile, Failure> {
        let Some(file) = file else {
            return Ok(ExportFile {
                out: BufWriter::new(Box::new(io::stdout())),
                destination: Destination::Stdout,
            });
        };
        let opened = match fs::metadata(file) {
            Ok(meta) if meta.is_dir() => Err(io::Error::other("it is a directory")),
            Ok(meta) if meta.is_file() => follow(file).and_then(|file| in_place_of(file, &meta)),
            Ok(_) => {
                OpenOptions::new().write(true).open(file).map(|out| (out, Destination::Open(file.to_owned())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => follow(file).and_then(new),
            Err(error) => Err(error),
        };
        match opened {
            Ok((out, destination)) => {
                Ok(ExportFile { out: BufWriter::with_capacity(BUFFER, Box::new(out)), destination })
            }
            Err(error) => Err(Failure::Usage(format!("cannot write {}: {error}", file.display()))),
        }
    }

    /// A failure to write.
    pub fn failed(&self, error: &io::Error) -> Failure {
        let path: &Path = match &self.destination {
            Destination::Stdout => return Failure::of_output(error),
            Destination::Open(file) => file,
            Destination::Beside { partial, .. } => partial,
        };
        Failure::Usage(format!("cannot write {}: {error}", path.display()))
    }

    /// All is written: a file takes its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.failed(&error))?;
        let Destination::Beside { partial, file } = self.destination else { return Ok(()) };
        partial.persist(&file).map_err(|failed| {
            Failure::Usage(format!(
                "cannot name {} {}: {}",
                failed.path.display(),
                file.display(),
                failed.error
            ))
        })
    }
}

/// Where a name leads through links, whether there is anything in the end or not.
fn follow(file: &Path) -> io::Result<PathBuf> {
    let mut at = file.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&at) {
            Ok(next) => at = folder(&at).join(next),
            Err(_) => return Ok(at),
        }
    }
    Err(io::Error::other("too many links lead on from it"))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is to take the place of one, with its mode and, as far as may be, its owner.
fn in_place_of(file: PathBuf, there: &Metadata) -> io::Result<(File, Destination)> {
    // Who may not write a file may not replace it either, whatever the directory allows.
    OpenOptions::new().write(true).open(&file)?;
    let (out, destination) = beside(file, Permissions::from_mode(0o600))?;
    // Only root may give files away; everyone else keeps what they wrote.
    let _ = fchown(&out, Some(there.uid()), Some(there.gid()));
    // After the owner, since a change of that takes bits of the mode away.
    out.set_permissions(there.permissions())?;
    Ok((out, destination))
}

fn new(file: PathBuf) -> io::Result<(File, Destination)> {
    // Less what the umask takes, as every new file.
    beside(file, Permissions::from_mode(0o666))
}

/// A file under a name that nobody else has.
fn beside(file: PathBuf, mode: Permissions) -> io::Result<(File, Destination)> {
    let name: String =
        file.file_name().map(OsStr::to_string_lossy).unwrap_or_default().chars().take(NAME).collect();
    let made = tempfile::Builder::new()
        .prefix(&format!("{name}."))
        .suffix(".partial")
        .permissions(mode)
        .tempfile_in(folder(&file))?;
    let (out, partial) = made.into_parts();
    Ok((out, Destination::Beside { partial, file }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::{os::unix::fs::symlink, thread};

    fn export(file: &Path) -> Result<(), Failure> {
        let mut target = ExportFile::open(Some(file))?;
        target.out.write_all(b"k\tv\n").unwrap();
        target.finish()
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_once_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.tsv");
        let mut target = ExportFile::open(Some(&file)).unwrap();
        target.out.write_all(b"k\tv\n").unwrap();
        assert!(!file.exists());
        target.finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"k\tv\n");
        fs::write(dir.path().join("like any other"), "").unwrap();
        assert_eq!(mode(&file), mode(&dir.path().join("like any other")));
    }

    #[test]
    fn an_export_that_fails_leaves_what_was_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.tsv");
        fs::write(&file, "old").unwrap();
        // Another one's.
        fs::write(dir.path().join("all.tsv.partial"), "not ours").unwrap();
        let mut target = ExportFile::open(Some(&file)).unwrap();
        target.out.write_all(b"k\tv\n").unwrap();
        drop(target);
        assert_eq!(names(dir.path()), ["all.tsv", "all.tsv.partial"]);
        assert_eq!(fs::read(&file).unwrap(), b"old");
        export(&file).unwrap();
        assert_eq!(fs::read(dir.path().join("all.tsv.partial")).unwrap(), b"not ours");
    }

    #[test]
    fn two_exports_to_one_file_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.tsv");
        let mut first = ExportFile::open(Some(&file)).unwrap();
        let mut second = ExportFile::open(Some(&file)).unwrap();
        first.out.write_all(b"1").unwrap();
        second.out.write_all(b"2").unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        first.finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"1");
        assert_eq!(names(dir.path()), ["all.tsv"]);
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.tsv");
        for bits in [0o600, 0o640, 0o664, 0o755] {
            fs::write(&file, "old").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(bits)).unwrap();
            export(&file).unwrap();
            assert_eq!((mode(&file), fs::read(&file).unwrap()), (bits, b"k\tv\n".to_vec()));
        }
    }

    #[test]
    fn a_link_stays_one_and_what_it_leads_to_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("far")).unwrap();
        fs::write(at("far/old.tsv"), "old").unwrap();
        symlink("far/old.tsv", at("to-a-file")).unwrap();
        symlink("to-a-file", at("to-a-link")).unwrap();
        symlink(at("far").join("new.tsv"), at("to-nothing")).unwrap();
        for (link, file) in [("to-a-link", "far/old.tsv"), ("to-nothing", "far/new.tsv")] {
            export(&at(link)).unwrap();
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            assert_eq!(fs::read(at(file)).unwrap(), b"k\tv\n");
        }
        symlink("circle", at("circle")).unwrap();
        symlink("far", at("to-a-folder")).unwrap();
        for wrong in ["circle", "far", "to-a-folder", "nowhere/all.tsv"] {
            let refused = export(&at(wrong)).unwrap_err().to_string();
            assert!(refused.contains(wrong), "{refused}");
        }
        assert_eq!(names(&at("far")), ["new.tsv", "old.tsv"]);
    }

    #[test]
    fn a_pipe_is_written_into_and_stays_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        export(&pipe).unwrap();
        assert_eq!(reader.join().unwrap(), b"k\tv\n");
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    #[test]
    fn a_long_name_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ü".repeat(127));
        export(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"k\tv\n");
    }
}
