//! `god-node` never panics and never hangs: command lines, variables, files of settings and data directories at random,
//! with descriptors that do not do their part. The same ones each time. Each runs in a network and above a `/var/lib`
//! of its own, so that nothing of this machine is listened on or written to.

use crate::{
    chance::{Random, noise, sink, values, write_all},
    cluster::{PATIENCE, turn},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const RUNS: u64 = 250;

/// The options there are, as clap tells bash.
fn options() -> Vec<String> {
    let script =
        Command::new(env!("CARGO_BIN_EXE_god-node")).args(["--generate", "bash"]).output().unwrap().stdout;
    let script = String::from_utf8(script).unwrap();
    let lines = script.lines().filter_map(|line| line.trim().strip_prefix("opts=\""));
    let line = lines.max_by_key(|line| line.len()).unwrap();
    let all: Vec<String> = line.trim_end_matches('"').split_whitespace().map(str::to_owned).collect();
    assert!(all.len() > 40 && all.iter().any(|it| it == "--tombstone-age"), "{all:?}");
    all
}

/// Values that some option takes.
const RIGHT: [&str; 22] = [
    "0.0.0.0:7001",
    "[::]:7002",
    "god-0.god:7100",
    "a:1, b:2,",
    "64MiB",
    "1GiB",
    "0B",
    "20ms",
    "1s",
    "1m 30s",
    "on",
    "off",
    "always",
    "none",
    "auto",
    "manual",
    "3",
    "16",
    "0.5",
    "info,god_core=trace",
    "d7f1d1a2-6a53-4d62-9a3f-3f3bb1d8a001",
    "text",
];

/// Files of settings, most of them wrong.
fn make_files(at: &Path, random: &mut Random, options: &[String], values: &[OsString]) -> Vec<String> {
    let bomb: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        format!("{text}a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    });
    let mut contents = vec![
        ("empty.yaml", Vec::new()),
        ("noise.yaml", noise(random)),
        ("deep.yaml", vec![b'['; 100_000]),
        ("deeper.yaml", b"a: {".repeat(50_000)),
        ("bomb.yaml", bomb.into_bytes()),
        ("marked.yaml", b"\xef\xbb\xbfmemory: 64MiB\r\n".to_vec()),
        ("utf16.yaml", b"\xff\xfem\0e\0".to_vec()),
        ("list.yaml", b"- memory\n".to_vec()),
        ("two.yaml", b"zone: a\n---\nzone: b\n".to_vec()),
        ("twice.yaml", b"zone: a\nzone: b\n".to_vec()),
        ("tag.yaml", b"memory: !!binary AAAA\nzone: !x y\n".to_vec()),
        ("right.yaml", b"memory: 64MiB\nseeds: [a:1]\ngossip: off\n".to_vec()),
    ];
    let drawn: Vec<String> = (0..20)
        .map(|_| {
            let mut line = || {
                let name = random.of(options).trim_start_matches('-');
                let value =
                    if random.next(2) == 0 { random.of(&RIGHT).into() } else { random.of(values).clone() };
                format!("{name}: {}\n", value.to_string_lossy())
            };
            (0..3).map(|_| line()).collect()
        })
        .collect();
    let names: Vec<String> = (0..drawn.len()).map(|at| format!("drawn-{at}.yaml")).collect();
    contents.extend(names.iter().zip(&drawn).map(|(name, text)| (name.as_str(), text.clone().into_bytes())));
    write_all(at, &contents)
}

/// Whether it waits for SIGTERM: the last thing before a node is at work.
fn is_open(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap_or(0);
    caught & 1 << (rustix::process::Signal::TERM.as_raw() - 1) != 0
}

/// Waits for its end, which SIGTERM brings once it is open. `None`: it hangs.
fn ends(mut child: Child) -> Option<(ExitStatus, bool)> {
    let (mut deadline, mut told) = (Instant::now() + PATIENCE, false);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some((status, told));
        }
        if !told && is_open(&child) {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            (deadline, told) = (Instant::now() + PATIENCE, true);
        }
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn command(home: &Path, line: &[OsString]) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let program = env!("CARGO_BIN_EXE_god-node");
    let script = format!("mount -t tmpfs -o size=64m tmpfs /var/lib && exec {program} \"$@\"");
    command.args(["--net", "--mount", "sh", "-c", &script, "god-node"]).args(line);
    command.current_dir(home).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

#[tokio::test]
async fn no_command_line_settings_or_descriptor_makes_a_node_panic_or_hang() {
    // In turn with clusters: a start takes what the machine has.
    let _turn = turn().await;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let home = tempfile::tempdir().unwrap();
    let (options, mut values) = (options(), values(&[]));
    values.extend(RIGHT.map(OsString::from));
    let files = make_files(home.path(), &mut random, &options, &values);
    values.extend(files.iter().map(OsString::from));
    let (mut refused, mut opened) = (0, 0);
    for run in 0..RUNS {
        let mut line: Vec<OsString> = Vec::new();
        for _ in 0..random.next(5) {
            line.push(random.of(&options).into());
            if random.next(8) > 0 {
                line.push(if random.next(2) == 0 {
                    random.of(&RIGHT).into()
                } else {
                    random.of(&values).clone()
                });
            }
        }
        if random.next(3) == 0 {
            line.extend(["--config".into(), random.of(&files).into()]);
        }
        let said = home.path().join("said");
        fs::write(&said, "").unwrap();
        let mut command = command(home.path(), &line);
        let mut set = Vec::new();
        for _ in 0..random.next(3) {
            let option = random.of(&options).trim_start_matches('-').replace('-', "_").to_uppercase();
            let value =
                if random.next(2) == 0 { random.of(&RIGHT).into() } else { random.of(&values).clone() };
            let name = format!("GOD_{}", if option == "SEED" { "SEEDS" } else { &option });
            command.env(&name, &value);
            set.push((name, value));
        }
        let (stdout, _kept) = sink(&mut random, &said);
        let (stderr, _too) = sink(&mut random, &said);
        command.stdin(if random.next(2) == 0 {
            Stdio::null()
        } else {
            File::open(home.path()).unwrap().into()
        });
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let ended = ends(child);
        let said = fs::read(&said).unwrap();
        let said = String::from_utf8_lossy(&said);
        let shown = |what: &dyn std::fmt::Debug| format!("{what:?}").chars().take(2_000).collect::<String>();
        let what = format!("run {run}: {} {}", shown(&line), shown(&set));
        let (status, was_open) = ended.unwrap_or_else(|| panic!("{what} hangs: {said}"));
        assert!(!said.contains("panicked at"), "{what}: {said}");
        assert!(
            matches!(status.code(), Some(0..=2)),
            "{what}: {status}, signal {:?}: {said}",
            status.signal()
        );
        if was_open {
            assert_eq!(status.code(), Some(0), "{what}: a node that was at work ends well: {said}");
        }
        refused += u32::from(status.code() == Some(2));
        opened += u32::from(was_open);
    }
    assert!(refused > 50 && opened > 10, "{refused} were refused, {opened} opened: little was tried");
}
