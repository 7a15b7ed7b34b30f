//! Golden files: what is asked and what comes of it, in one file that a person can read.
#![allow(clippy::unwrap_used)]

use std::{env, fmt::Write as _, fs};

/// Compares with a file under `src/`; `UPDATE_GOLDEN=1` writes it anew.
pub fn golden(file: &str, shown: &str) {
    let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, shown).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{path} differs; UPDATE_GOLDEN=1 writes it anew");
}

/// Runs the requests of a file under `src/`, its lines that begin with `> `, and compares what each of them answers
/// with the lines below it. What begins with `#` is for the reader.
pub fn script(file: &str, mut run: impl FnMut(&[&str]) -> String) {
    let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut shown = String::new();
    for line in fs::read_to_string(&path).unwrap().lines() {
        if line.is_empty() || line.starts_with('#') {
            shown.push_str(line);
            shown.push('\n');
        } else if let Some(request) = line.strip_prefix("> ") {
            let words: Vec<&str> = request.split_whitespace().collect();
            write!(shown, "{line}\n{}", run(&words)).unwrap();
        }
    }
    golden(file, &shown);
}
