//! Command lines at random, the same ones each time, and descriptors that do not do their part. Tests of both programs
//! draw from here.

#![allow(clippy::unwrap_used)]

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{PipeReader, Write as _, pipe},
    os::unix::ffi::OsStringExt as _,
    path::Path,
    process::Stdio,
};

/// xorshift64*: the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.next(all.len())]
    }
}

/// What a person, a script or a mistake puts where a value belongs. None of it names a place that could be made outside
/// of the directory in which commands run.
pub fn values(files: &[String]) -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "",
        "-",
        "--",
        "k",
        "1",
        "-1",
        "0",
        "99999999999999999999",
        "1h",
        "1M",
        "300000years",
        "18446744073709552s",
        "one",
        "all",
        "4294967296",
        "json",
        "yaml",
        "hex",
        "base64",
        "00ff",
        "zz",
        "AP8=",
        "a=b",
        "1:2",
        "1:x",
        ":",
        "127.0.0.1:1",
        "[::1]:7000",
        "user@host:1",
        "\u{feff}",
        "Grüße",
        "\u{202e}",
        "\t",
        "refused",
        "unknown",
        "busy",
        "default",
        "ordered",
        "/dev/null",
        "/dev/full",
        "/dev/null/at/all",
        ".",
        "%s%n",
        "$(x)",
        "1,2,3",
    ]
    .map(OsString::from)
    .into();
    all.extend([OsString::from_vec(vec![0xff, 0xfe]), OsString::from_vec(vec![b'a'; 70_000])]);
    all.extend(files.iter().map(OsString::from));
    all
}

/// Files in a directory, by their names.
pub fn write_all(at: &Path, contents: &[(&str, Vec<u8>)]) -> Vec<String> {
    for (name, bytes) in contents {
        fs::write(at.join(name), bytes).unwrap();
    }
    contents.iter().map(|(name, _)| (*name).to_owned()).collect()
}

pub fn noise(random: &mut Random) -> Vec<u8> {
    (0..4_096).map(|_| random.next(256) as u8).collect()
}

/// A pipe whose reader has gone before anything is written.
pub fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A disk without room.
pub fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A descriptor to write to, and what has to live as long as it.
pub fn sink(random: &mut Random, file: &Path) -> (Stdio, Option<PipeReader>) {
    let (reader, writer) = pipe().unwrap();
    match random.next(5) {
        0 => (writer.into(), None),
        1 => (full(), None),
        2 => {
            // Full, and not to be waited for.
            rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
            while (&writer).write(&[b'x'; 4_096]).is_ok() {}
            (writer.into(), Some(reader))
        }
        3 => (File::open("/dev/null").unwrap().into(), None),
        _ => (OpenOptions::new().create(true).append(true).open(file).unwrap().into(), None),
    }
}
