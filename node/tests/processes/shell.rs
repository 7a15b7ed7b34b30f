//! Commands as a person types them: in bash, with the programs on the path, in a directory of their own.

use crate::cluster::PATIENCE;
use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The lines of all blocks of a language in a text of Markdown, by the section that they stand in. A section begins at
/// a heading of one of these kinds.
pub fn blocks(text: &str, language: &str, headings: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let (mut title, mut inside) = (String::new(), false);
    for line in text.lines() {
        if line.strip_prefix("```") == Some(language) {
            inside = true;
        } else if line == "```" {
            inside = false;
        } else if inside {
            match all.last_mut() {
                Some((last, lines)) if *last == title => lines.push(line.to_owned()),
                _ => all.push((title.clone(), vec![line.to_owned()])),
            }
        } else if let Some((kind, name)) = line.split_once(' ')
            && headings.contains(&kind)
        {
            name.clone_into(&mut title);
        }
    }
    all
}

/// What came of a command.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    /// Standard output and standard error, as a terminal would show them.
    pub text: String,
}

/// Where somebody sits and types.
pub struct Desk {
    directory: TempDir,
    /// Variables that were exported.
    pub variables: Vec<(String, String)>,
}

impl Desk {
    pub fn new() -> Desk {
        let directory = TempDir::new().unwrap();
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let node = Path::new(env!("CARGO_BIN_EXE_god-node"));
        // The command's program is compiled beside the node's, with the workspace.
        let god = node.with_file_name("god");
        assert!(god.is_file(), "{} is not there: cargo build --release --bins", god.display());
        symlink(node, bin.join("god-node")).unwrap();
        symlink(god, bin.join("god")).unwrap();
        Desk { directory, variables: Vec::new() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn begin(&self, script: &str, out: &Path) -> Child {
        let here = self.directory.path();
        let log = File::create(out).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -o pipefail\n{script}")]).current_dir(here).env_clear();
        command.env("PATH", format!("{}/bin:/usr/bin:/bin", here.display())).env("HOME", here);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // A group of its own, so that all that was typed can be interrupted at once, as Ctrl-C does.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    /// Types something, and waits until it is done.
    pub fn types(&self, script: &str) -> Said {
        let out = self.directory.path().join(".said");
        ended(self.begin(script, &out), script, &out)
    }

    /// Types something that goes on until Ctrl-C, which comes once it says `ready`.
    pub fn types_until(&self, script: &str, ready: &str) -> Said {
        let out = self.directory.path().join(".said");
        let mut child = self.begin(script, &out);
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(&out).unwrap().contains(ready) {
            let early = child.try_wait().unwrap();
            assert!(
                early.is_none(),
                "{script}: ended before it said {ready:?}: {:?}",
                fs::read_to_string(&out)
            );
            assert!(Instant::now() < deadline, "{script}: {:?}", fs::read_to_string(&out));
            sleep(Duration::from_millis(20));
        }
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
        ended(child, script, &out)
    }
}

fn ended(mut child: Child, script: &str, out: &Path) -> Said {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let text = String::from_utf8_lossy(&fs::read(out).unwrap()).into_owned();
            return Said { code: status.code().unwrap_or(-1), text };
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{script}: no end: {:?}", fs::read_to_string(out));
        }
        sleep(Duration::from_millis(10));
    }
}
