//! `god recover`: a ring whose voters are lost for good is made decidable again.

use crate::{context::Context, failure::Failure, figures::counted, output};
use clap::Args;
use god_proto::v1::{RecoverReply, RecoverRequest, RecoveryRisk};
use serde_json::json;

/// Lets the nodes that are left decide again when most voters are lost for good
///
/// Without a majority of voters nothing about the ring can change: no node can join, leave or be replaced. This puts
/// your word in the place of their votes. A named node that comes back after all is a member still, in state leaving:
/// it serves what it holds and decides nothing, until `god ring change --leave N` or `--replace N:NEW`, without --lost,
/// has ended, and it is retired. Changes of the ring that only named nodes knew are lost. First it says what it would
/// do, and what may be lost; with --yes it does it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god recover --server db-2:7000 --lost 1,3          what would be done, and what may be lost
  god recover --server db-2:7000 --lost 1,3 --yes    do it

Afterwards give each lost node's copies new homes: start new nodes with --seed and --join manual, then
  god ring change --replace LOST:NEW --lost          or, where enough nodes are left
  god ring change --leave LOST --lost")]
pub struct RecoverArgs {
    /// Nodes that never come back
    #[arg(long, required = true, value_name = "NODE,…", value_delimiter = ',')]
    lost: Vec<u32>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

pub async fn run(context: &Context, args: &RecoverArgs) -> Result<(), Failure> {
    let request = RecoverRequest { lost: args.lost.clone(), dry_run: !args.yes };
    let reply = context.client().recover(request).await?;
    let risk = |risk: &RecoveryRisk| {
        json!({
            "keyspace": risk.keyspace,
            "arcs": risk.arcs,
            "arcs_gone": risk.arcs_gone,
            "arcs_at_risk": risk.arcs_at_risk,
        })
    };
    let document = json!({
        "done": args.yes,
        "newest_epoch": reply.newest_epoch,
        "next_epoch": reply.next_epoch,
        "answering": reply.answering,
        "voters": reply.voters,
        "risks": reply.risks.iter().map(risk).collect::<Vec<_>>(),
        "taken_by": reply.taken_by,
    });
    if args.yes {
        output::report(context.output(), &document, || text(&reply, true));
        return Ok(());
    }
    output::document(context.output(), &document, || text(&reply, false))
}

fn text(reply: &RecoverReply, done: bool) -> String {
    let nodes = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!("nodes that answer: {}", nodes(&reply.answering)),
        format!(
            "the ring goes from epoch {} to {}; from then on nodes {} decide",
            reply.newest_epoch,
            reply.next_epoch,
            nodes(&reply.voters)
        ),
        format!("may be lost: changes of the ring after epoch {}", reply.newest_epoch),
    ];
    for risk in &reply.risks {
        lines.push(match (risk.arcs_gone, risk.arcs_at_risk) {
            (0, 0) => format!("keyspace {}: no acknowledged write is lost", risk.keyspace),
            (gone, at_risk) => format!(
                "keyspace {}: of {}, {gone} have no copy left (all of their keys are lost), and in {at_risk} \
                 acknowledged writes may be lost that only the lost nodes had",
                risk.keyspace,
                counted(u64::from(risk.arcs), "arc")
            ),
        });
    }
    lines.push(if done {
        format!("done; nodes {} have the new ring. Next: `god recover --help`", nodes(&reply.taken_by))
    } else {
        "nothing was changed; add --yes to do it".to_owned()
    });
    lines.join("\n")
}
