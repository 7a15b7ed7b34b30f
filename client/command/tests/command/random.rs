//! `god` never panics: command lines at random, made of what its own completion offers, with descriptors that do not do
//! their part. The same ones each time.

use crate::{
    chance::{Random, noise, sink, values, write_all},
    fake,
};
use pty_process::blocking;
use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

const RUNS: u64 = 700;
/// After so long a command is taken to be one that goes on, and ended.
const LONG: Duration = Duration::from_secs(2);

/// Each command with the words that may follow it, as clap tells bash.
fn commands() -> Vec<(Vec<String>, Vec<String>)> {
    let script =
        Command::new(env!("CARGO_BIN_EXE_god")).args(["completion", "bash"]).output().unwrap().stdout;
    let script = String::from_utf8(script).unwrap();
    let mut all = Vec::new();
    let mut path = Vec::new();
    for line in script.lines().map(str::trim) {
        if let Some(label) =
            line.strip_suffix(')').filter(|label| label.starts_with("god") && !label.contains(','))
        {
            path = label.split("__").skip(1).filter(|word| *word != "subcmd").map(str::to_owned).collect();
        } else if let Some(words) = line.strip_prefix("opts=\"").and_then(|line| line.strip_suffix('"')) {
            all.push((path.clone(), words.split(' ').map(str::to_owned).collect()));
        }
    }
    // Nothing but the node's program is started by `dev`, and that is none here; a benchmark only takes long.
    all.retain(|(path, _): &(Vec<String>, Vec<String>)| path.first().is_none_or(|name| name != "bench"));
    assert!(all.len() > 20, "{all:?}");
    all
}

/// Files of many kinds, in the directory in which commands run.
fn make_files(at: &Path, random: &mut Random) -> Vec<String> {
    let contents: [(&str, Vec<u8>); 7] = [
        ("empty.tsv", Vec::new()),
        ("noise", noise(random)),
        ("pairs.tsv", b"a\t1\nb\t2\na\t3\nbad\n\\x4\t\n".to_vec()),
        (
            "pairs.jsonl",
            b"{\"key\":\"a\",\"value\":1e400}\n{\"key\":\n[[[[\n{\"key_base64\":\"!\",\"value\":1}\n"
                .to_vec(),
        ),
        ("deep.jsonl", vec![b'['; 100_000]),
        ("marked.csv", b"\xef\xbb\xbfa\t1\r\n\r\n".to_vec()),
        ("utf16.txt", b"\xff\xfea\0\t\x001\0\n\0".to_vec()),
    ];
    write_all(at, &contents)
}

/// Waits for its end; ends it where that takes long.
fn ends(mut child: Child) -> ExitStatus {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            return child.wait().unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn no_command_line_file_or_descriptor_makes_it_panic() {
    let fake = fake::start();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let home = tempfile::tempdir().unwrap();
    let files = make_files(home.path(), &mut random);
    let (commands, values) = (commands(), values(&files));
    for run in 0..RUNS {
        let (path, words) = random.of(&commands);
        let mut line: Vec<OsString> = path.iter().map(OsString::from).collect();
        for _ in 0..random.next(6) {
            line.push(if random.next(2) == 0 { random.of(words).into() } else { random.of(&values).clone() });
        }
        let said = home.path().join("said");
        fs::write(&said, "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_god"));
        command.args(&line).current_dir(home.path()).env_clear();
        command
            .env("GOD_SERVER", fake.address.to_string())
            .env("GOD_NODE", "/bin/false")
            .env("HOME", home.path());
        if random.next(8) == 0 {
            let name =
                random.of(&["GOD_KEYSPACE", "GOD_OUTPUT", "GOD_SERVER", "NO_COLOR", "TERM", "COLUMNS"]);
            // A variable holds no zero byte, and neither do these.
            command.env(name, random.of(&values));
        }
        command.stdin(match random.next(3) {
            0 => Stdio::null(),
            1 => File::open(home.path().join(random.of(&files))).unwrap().into(),
            _ => File::open(home.path()).unwrap().into(),
        });
        let status = if random.next(10) == 0 {
            // A terminal that goes away at once.
            let (pty, pts) = blocking::open().unwrap();
            let child = blocking::Command::from(command).env("TERM", "xterm").spawn(pts).unwrap();
            drop(pty);
            ends(child)
        } else {
            let (stdout, _kept) = sink(&mut random, &said);
            let (stderr, _too) = sink(&mut random, &said);
            ends(command.stdout(stdout).stderr(stderr).spawn().unwrap())
        };
        let said = fs::read(&said).unwrap();
        let said = String::from_utf8_lossy(&said);
        assert_ne!(status.code(), Some(101), "run {run}: {line:?}: {said}");
        // Ended by the test, or by the terminal that went away.
        assert!(matches!(status.signal(), None | Some(1 | 9)), "run {run}: {line:?}: {status}: {said}");
        assert!(!said.contains("panicked at"), "run {run}: {line:?}: {said}");
    }
}
