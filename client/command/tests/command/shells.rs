//! Completions as they are installed, each tried in its shell by typing. `make test` installs the programs and the
//! shells, and runs these; GOD_INSTALLED names where.

use crate::terminal::{self, Terminal};
use std::{fs, path::PathBuf, process::Command};

/// Where `make install` put it.
fn installed() -> PathBuf {
    let at = std::env::var_os("GOD_INSTALLED").expect("GOD_INSTALLED is set: `.ci/install test` runs this");
    fs::canonicalize(at).unwrap()
}

/// A shell that has read the installed completions, with a prompt that tells when it is ready.
struct Shell {
    terminal: Terminal,
    _home: tempfile::TempDir,
}

const PROMPT: &str = "ready>";

impl Shell {
    fn start(program: &str, args: &[&str], set_up: &str) -> Shell {
        let home = tempfile::tempdir().unwrap();
        let at = installed();
        let path = format!("{}/bin:/usr/bin:/bin", at.display());
        let mut command = terminal::command(program).args(args).env("HOME", home.path()).env("PATH", path);
        command = command.env("XDG_DATA_DIRS", at.join("share")).current_dir(home.path());
        let terminal = Terminal::start(command);
        let set_up = set_up.replace("SHARE", at.join("share").to_str().unwrap());
        // In two parts: what is typed does not hold the prompt.
        terminal.send(&format!("{set_up}; PS1='read''y>'\n"));
        terminal.shows("a prompt", |screen| screen.contains(PROMPT));
        Shell { terminal, _home: home }
    }

    /// Types on an empty screen, and waits for what comes of it.
    #[track_caller]
    fn completes(&self, typed: &str, words: &[&str]) {
        self.terminal.send("\x15\x0c");
        self.terminal.shows("an empty line", |screen| screen.trim() == PROMPT);
        self.terminal.send(typed);
        let seen = self.terminal.shows(&format!("{words:?} after {typed:?}"), |screen| {
            let screen = screen.to_lowercase();
            words.iter().all(|word| screen.contains(word))
                || ["not found", "bad substitution", "error", "no such"]
                    .iter()
                    .any(|bad| screen.contains(bad))
        });
        assert!(words.iter().all(|word| seen.contains(word)), "{typed:?} gives:\n{seen}");
    }

    fn completes_god(&self) {
        let tabs = "\t\t";
        self.completes(&format!("god rin{tabs}"), &["god ring"]);
        self.completes(&format!("god ring {tabs}"), &["show", "plan", "change", "watch", "cancel"]);
        self.completes(&format!("god ring change --repl{tabs}"), &["--replace", "--replicas"]);
        self.completes(&format!("god get --output {tabs}"), &["table", "json", "yaml"]);
        // No value of a server can be completed; the line stays as it is, and goes on to be completed after it.
        self.completes(&format!("god --server localhost:70{tabs}00 stat{tabs}"), &["localhost:7000 status"]);
        self.completes(&format!("god --server [::1]:7000 ring pl{tabs}"), &["[::1]:7000 ring plan"]);
        self.completes(&format!("god load --format {tabs}"), &["auto", "tsv", "jsonl", "unicode"]);
        self.completes(&format!("god-node --print-c{tabs}"), &["--print-config"]);
        self.completes(&format!("god-node --durability {tabs}"), &["none", "interval", "always"]);
    }
}

#[test]
#[ignore = "needs shells and an installation: `make test` runs it"]
fn bash_completes() {
    let set_up = "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; \
         source SHARE/bash-completion/completions/god; source SHARE/bash-completion/completions/god-node";
    Shell::start("bash", &["--norc", "--noprofile", "-i"], set_up).completes_god();
}

#[test]
#[ignore = "needs shells and an installation: `make test` runs it"]
fn zsh_completes() {
    let set_up = "unsetopt beep promptsp; bindkey -e; fpath=(SHARE/zsh/site-functions $fpath); \
         autoload -Uz compinit; compinit -u -d $HOME/dump";
    Shell::start("zsh", &["-f", "-i"], set_up).completes_god();
}

#[test]
#[ignore = "needs shells and an installation: `make test` runs it"]
fn fish_completes() {
    // Fish finds them by itself: they are in `vendor_completions.d` of a data directory.
    let asks = |line: &str| {
        let (at, home) = (installed(), tempfile::tempdir().unwrap());
        let ended = Command::new("fish")
            .args(["-c", &format!("complete -C '{line}'")])
            .env_clear()
            .env("PATH", format!("{}/bin:/usr/bin:/bin", at.display()))
            .env("XDG_DATA_DIRS", at.join("share"))
            .env("HOME", home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.is_empty() && ended.status.success(), "{line}: {said}");
        String::from_utf8(ended.stdout).unwrap()
    };
    for (line, words) in [
        ("god rin", &["ring"][..]),
        ("god ring ", &["show", "plan", "change", "watch", "cancel"]),
        ("god ring change --repl", &["--replace", "--replicas"]),
        ("god get --output ", &["table", "json", "yaml"]),
        ("god --server localhost:7000 stat", &["status"]),
        ("god load --format ", &["auto", "tsv", "jsonl", "unicode"]),
        ("god-node --print-c", &["--print-config"]),
        ("god-node --durability ", &["none", "interval", "always"]),
    ] {
        let offered = asks(line);
        let offered: Vec<&str> = offered.lines().filter_map(|line| line.split('\t').next()).collect();
        assert!(words.iter().all(|word| offered.contains(word)), "{line:?} gives {offered:?}");
    }
    assert!(!asks("god --server localhost:70").contains("status"));
}
