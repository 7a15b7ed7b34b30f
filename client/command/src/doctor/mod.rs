//! `god doctor`: what an operator would check by hand, each with what to do. Observing is here and in `observe`; what
//! is made of it is in `judge`, and pure.

mod judge;
mod observe;

use crate::{
    context::Context,
    failure::Failure,
    figures::counted,
    options::Global,
    output::{self, Judgement, coloured, painted},
};
use clap::Args;
pub use judge::Voters;
use judge::{Finding, Severity, judge};
use serde_json::{Value, json};

/// Checks what an operator would check by hand, and says what to do
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god doctor
  god doctor --server db-1:7000,db-2:7000
  god doctor -o json | jq '.findings[] | select(.severity == \"problem\")'

Each node is asked by itself, at its door for clients and at its door for HTTP, so run it where clients
run. It looks at: who can be reached; versions; clocks, among nodes and beside this machine's; room on
disks and for open files; the ring, its voters and operations; whether each keyspace can be read and
written; writes that wait for nodes (hints); copies that are not compared yet; certificates. It changes
nothing. Each node has --timeout to answer, 5s at most.

Exit codes: 0 nothing to do, 6 a warning (look at it), 7 a problem (act), 5 unreachable.")]
pub struct DoctorArgs {}

pub async fn run(global: &Global, context: &Context, _: &DoctorArgs) -> Result<(), Failure> {
    let observed = observe::observe(global, context).await?;
    let findings = judge(&observed);
    let nodes = observed.status.nodes.len() as u64;
    output::document(context.output(), &as_json(&findings, nodes), || as_text(&findings, nodes))?;
    match worst(&findings) {
        Severity::Note => Ok(()),
        Severity::Warning => Err(Failure::Found { problem: false }),
        Severity::Problem => Err(Failure::Found { problem: true }),
    }
}

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
}

fn as_json(findings: &[Finding], nodes: u64) -> Value {
    json!({
        "worst": worst(findings).name(),
        "nodes": nodes,
        "findings": findings.iter().map(|finding| json!({
            "severity": finding.severity.name(),
            "check": finding.check,
            "where": finding.place,
            "what": finding.what,
            "do": finding.remedy,
        })).collect::<Vec<_>>(),
    })
}

/// The widest a line should be, in characters.
const WIDTH: usize = 80;
/// What stands before the second line of a finding.
const INDENT: &str = "         ";

fn as_text(findings: &[Finding], nodes: u64) -> String {
    let mut out = String::new();
    for finding in findings {
        let name = finding.severity.name();
        let judgement = match finding.severity {
            Severity::Note => Judgement::Good,
            Severity::Warning => Judgement::Look,
            Severity::Problem => Judgement::Bad,
        };
        let text = wrapped(&format!("{}: {}", finding.place, finding.what), WIDTH - INDENT.len());
        let head = if coloured() { painted(name, judgement) } else { name.to_owned() };
        out += &head;
        out += INDENT.get(name.len()..).unwrap_or(" ");
        out += &text.join(&format!("\n{INDENT}"));
        if !finding.remedy.is_empty() {
            let remedy = wrapped(&format!("-> {}", finding.remedy), WIDTH - INDENT.len() - 3);
            out += &format!("\n{INDENT}{}", remedy.join(&format!("\n{INDENT}   ")));
        }
        out += "\n";
    }
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    out += &format!(
        "{} looked at: {}, {}",
        counted(nodes, "node"),
        counted(of(Severity::Problem), "problem"),
        counted(of(Severity::Warning), "warning")
    );
    out
}

/// A text in lines of at most so many characters, where its words permit.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            word.clone_into(line);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            *line += " ";
            *line += word;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            check: "reach",
            place: "node 3 at db-3.databases.svc.cluster.local:7000".to_owned(),
            what: "it does not answer: connection refused, and that for longer than anybody would like"
                .to_owned(),
            remedy: "start it; if its machine is lost: god ring change --replace 3:NEW --lost".to_owned(),
        }
    }

    #[test]
    fn findings_fit_80_columns_and_say_what_to_do() {
        let text = as_text(&[finding(Severity::Problem), finding(Severity::Note)], 3);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("problem  node 3 at"), "{text}");
        assert!(text.contains("\n         -> start it"), "{text}");
        assert!(text.ends_with("3 nodes looked at: 1 problem, 0 warnings"), "{text}");
    }

    #[test]
    fn the_worst_finding_decides_how_it_ends() {
        assert_eq!(worst(&[]), Severity::Note);
        assert_eq!(worst(&[finding(Severity::Warning), finding(Severity::Note)]), Severity::Warning);
        let json = as_json(&[finding(Severity::Warning), finding(Severity::Problem)], 3);
        assert_eq!(json["worst"], "problem");
        assert_eq!(json["findings"][0]["check"], "reach");
    }

    #[test]
    fn a_word_that_is_too_long_stands_alone() {
        assert_eq!(wrapped("a bb cccccccc d", 5), ["a bb", "cccccccc", "d"]);
    }
}
