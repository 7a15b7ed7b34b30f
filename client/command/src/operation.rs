//! `god ring plan`, `change`, `watch`, `cancel`: operations on the ring.

use crate::{
    context::Context,
    doctor::Voters,
    failure::Failure,
    figures::counted,
    follow::{follow, follow_for_programs},
    keyspace::quorums,
    options::Output,
    output::{self, render},
};
use clap::{ArgGroup, Args};
use god_proto::v1::{
    EndedOperation, JoinWish, LeaveWish, Operation, OperationPhase, OperationStatus, PlanOperationReply,
    RebalanceWish, ReplaceWish, ReplicasWish, ReweightWish, RezoneWish, Wish, wish,
};
use serde_json::{Value, json};
use std::io;

/// Wishes beside which quorums mean nothing; and those beside which a loss does not. (`requires` would not do: clap
/// asks for nothing that the wish itself shuts out.)
const NOT_OF_COPIES: [&str; 6] = ["join", "leave", "replace", "weight", "zone", "rebalance"];
const NOT_OF_LOSS: [&str; 5] = ["join", "weight", "zone", "replicas", "rebalance"];

/// What is asked of the ring: one of these.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(group(ArgGroup::new("wish").required(true)))]
pub struct WishArgs {
    /// A member takes its part of what the others hold
    #[arg(long, value_name = "NODE", group = "wish")]
    join: Option<u32>,
    /// A member gives all that it holds to the others, and is retired
    #[arg(long, value_name = "NODE", group = "wish")]
    leave: Option<u32>,
    /// A member takes all that another one holds, which is retired
    #[arg(long, value_name = "OLD:NEW", value_parser = pair, group = "wish")]
    replace: Option<(u32, u32)>,
    /// A member takes another weight, and as much data as goes with it
    #[arg(long, value_name = "NODE:WEIGHT", value_parser = weight, group = "wish")]
    weight: Option<(u32, f64)>,
    /// A member is in another zone
    #[arg(long, value_name = "NODE:ZONE", value_parser = zone, group = "wish")]
    zone: Option<(u32, String)>,
    /// The keyspace (see --keyspace) has so many copies of each key
    #[arg(long, value_name = "N", group = "wish")]
    replicas: Option<u32>,
    /// With --replicas: copies that must acknowledge a write (default: more than half)
    #[arg(long, value_name = "N", conflicts_with_all = NOT_OF_COPIES)]
    write_quorum: Option<u32>,
    /// With --replicas: copies that must answer a read (default: more than half, and as many as see every acknowledged
    /// write)
    #[arg(long, value_name = "N", conflicts_with_all = NOT_OF_COPIES)]
    read_quorum: Option<u32>,
    /// What has grown uneven is made even
    #[arg(long, group = "wish")]
    rebalance: bool,
    /// With --leave or --replace: the node's data are gone; what only it had is given up
    #[arg(long, conflicts_with_all = NOT_OF_LOSS)]
    lost: bool,
}

/// An operation to begin.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    #[command(flatten)]
    wish: WishArgs,
    /// A name for it; asking twice under one name is asking once
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
}

fn two(text: &str) -> Result<(u32, &str), String> {
    let (node, rest) = text.split_once(':').ok_or("write two parts with a colon between them")?;
    let node = node.parse().map_err(|_| format!("{node:?} is no node number; `god status` lists them"))?;
    Ok((node, rest))
}

fn pair(text: &str) -> Result<(u32, u32), String> {
    let (old, new) = two(text)?;
    Ok((old, new.parse().map_err(|_| format!("{new:?} is no node number; `god status` lists them"))?))
}

fn weight(text: &str) -> Result<(u32, f64), String> {
    let (node, weight) = two(text)?;
    Ok((node, weight.parse().map_err(|_| format!("{weight:?} is no number"))?))
}

fn zone(text: &str) -> Result<(u32, String), String> {
    two(text).map(|(node, zone)| (node, zone.to_owned()))
}

impl WishArgs {
    async fn wish(&self, context: &Context) -> Result<Wish, Failure> {
        let lost = self.lost;
        let wish = match self {
            WishArgs { join: Some(node), .. } => wish::Wish::Join(JoinWish { node: *node }),
            WishArgs { leave: Some(node), .. } => wish::Wish::Leave(LeaveWish { node: *node, lost }),
            WishArgs { replace: Some((old, new)), .. } => {
                wish::Wish::Replace(ReplaceWish { old: *old, new: *new, lost })
            }
            WishArgs { weight: Some((node, weight)), .. } => {
                wish::Wish::Reweight(ReweightWish { node: *node, weight: *weight })
            }
            WishArgs { zone: Some((node, zone)), .. } => {
                wish::Wish::Rezone(RezoneWish { node: *node, zone: zone.clone() })
            }
            WishArgs { replicas: Some(replicas), .. } => {
                let ring = context.client().ring().await?;
                let found = ring.keyspaces.iter().find(|keyspace| keyspace.name == context.name());
                let Some(keyspace) = found else {
                    return Err(Failure::Usage(format!("there is no keyspace {}", context.name())));
                };
                let (write_quorum, read_quorum) = quorums(*replicas, self.write_quorum, self.read_quorum)?;
                let (keyspace, replicas) = (keyspace.id, *replicas);
                wish::Wish::Replicas(ReplicasWish { keyspace, replicas, write_quorum, read_quorum })
            }
            _ => wish::Wish::Rebalance(RebalanceWish {}),
        };
        Ok(Wish { wish: Some(wish) })
    }
}

pub async fn plan(context: &Context, args: &WishArgs) -> Result<(), Failure> {
    let wish = args.wish(context).await?;
    let plan = context.client().plan_operation(wish).await?;
    output::document(context.output(), &plan_json(&plan), || plan_text(&plan))
}

pub async fn change(context: &Context, args: &ChangeArgs) -> Result<(), Failure> {
    let wish = args.wish.wish(context).await?;
    let id = match context.client().begin_operation(&args.id, wish).await {
        Ok(id) => id,
        Err(error) => return Err(explained(context, error.into()).await),
    };
    if args.wait {
        follow(context, Some(&id)).await?;
    }
    output::report(context.output(), &json!({ "id": id }), || match args.wait {
        true => format!("operation {id} is done"),
        false => format!("operation {id} has begun; `god ring watch` shows how far it is"),
    });
    Ok(())
}

/// With the reason why nothing was decided, where that is that too few voters are up.
async fn explained(context: &Context, failure: Failure) -> Failure {
    if !matches!(failure, Failure::Unknown(_) | Failure::Rejected(_)) {
        return failure;
    }
    let status = context.client().status().await.ok();
    let Some((what, remedy)) = status.and_then(|status| Voters::of(&status).undecided()) else {
        return failure;
    };
    match failure {
        Failure::Unknown(text) => Failure::Unknown(format!("{text} ({what}; {remedy})")),
        failure => Failure::Refused(format!("{failure}; {what}; {remedy}")),
    }
}

pub async fn cancel(context: &Context, id: &str) -> Result<(), Failure> {
    if let Err(error) = context.client().cancel_operation(id).await {
        return Err(explained(context, error.into()).await);
    }
    output::report(context.output(), &json!({ "id": id }), || {
        format!("operation {id} is being undone; `god ring watch` shows how far it is")
    });
    Ok(())
}

pub async fn watch(context: &Context) -> Result<(), Failure> {
    if context.output() != Output::Table {
        let last = follow_for_programs(context).await?;
        let mut document = list_json(last.epoch, &[]);
        document["ended"] = last.ended.iter().map(ended_json).collect();
        return output::item(&mut io::stdout().lock(), context.output(), document);
    }
    let last = follow(context, None).await?;
    let ended: Vec<String> = last.ended.iter().rev().take(5).map(ended_words).collect();
    output::line(&match ended.is_empty() {
        true => "nothing is under way, and nothing was".to_owned(),
        false => format!("nothing is under way; the latest that ended:\n  {}", ended.join("\n  ")),
    })
}

/// An operation in words.
pub fn words(operation: &Operation) -> String {
    let phase = match operation.phase() {
        OperationPhase::Waiting => "waits",
        OperationPhase::Moving => "moves data",
        OperationPhase::Cleaning if changes_quorums(operation) => "waits until its quorums are heard of",
        OperationPhase::Cleaning => "hands over what is left",
        OperationPhase::Cancelling => "is being undone",
    };
    format!("{}; it {phase}", wish_words(operation.wish.as_ref()))
}

fn changes_quorums(operation: &Operation) -> bool {
    matches!(operation.wish.as_ref().and_then(|wish| wish.wish.as_ref()), Some(wish::Wish::Replicas(_)))
}

fn wish_words(wish: Option<&Wish>) -> String {
    match wish.and_then(|wish| wish.wish.as_ref()) {
        Some(wish::Wish::Join(it)) => format!("node {} joins", it.node),
        Some(wish::Wish::Leave(it)) => format!("node {} leaves", it.node),
        Some(wish::Wish::Replace(it)) => format!("node {} replaces node {}", it.new, it.old),
        Some(wish::Wish::Reweight(it)) => format!("node {} takes weight {}", it.node, it.weight),
        Some(wish::Wish::Rezone(it)) => format!("node {} is in zone {:?}", it.node, it.zone),
        Some(wish::Wish::Replicas(it)) => {
            let ReplicasWish { keyspace, replicas, write_quorum, read_quorum } = it;
            format!(
                "keyspace {keyspace} has {replicas} copies of each key: writes ask {write_quorum}, reads {read_quorum}"
            )
        }
        Some(wish::Wish::Rebalance(_)) => "what is uneven is made even".to_owned(),
        None => "an operation that this version does not know".to_owned(),
    }
}

fn ended_words(ended: &EndedOperation) -> String {
    let how = match (ended.cancelled, ended.refused.as_str()) {
        (true, "") => "undone".to_owned(),
        (true, why) => format!("not all undone: {why}"),
        (false, "") => "done".to_owned(),
        (false, why) => format!("refused: {why}"),
    };
    format!("{} ({}): {how}, epoch {}", ended.id, wish_words(ended.wish.as_ref()), ended.epoch)
}

fn nodes(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn plan_text(plan: &PlanOperationReply) -> String {
    let mut out = format!(
        "{}, {} cut in two; {:.1} MB to be copied ({:.1} MB at the least), about {:.0} s\n",
        counted(plan.moves.len() as u64, "move"),
        counted(plan.splits.len() as u64, "arc"),
        plan.bytes as f64 / 1e6,
        plan.ideal_bytes as f64 / 1e6,
        plan.expected_ms as f64 / 1e3
    );
    let mut table = output::table(&["arc", "cut off", "why"], &["arc", "cut off"]);
    for split in &plan.splits {
        table.add_row([split.arc.to_string(), split.new_arc.to_string(), split.reason.clone()]);
    }
    if !plan.splits.is_empty() {
        out += &format!("\n{}\n", render(table));
    }
    let mut table = output::table(&["arc", "from", "to", "bytes", "why"], &["arc", "bytes"]);
    for step in &plan.moves {
        let (from, to) = (nodes(&step.from), nodes(&step.to));
        table.add_row([step.arc.to_string(), from, to, step.bytes.to_string(), step.reason.clone()]);
    }
    if !plan.moves.is_empty() {
        out += &format!("\n{}\n", render(table));
    }
    let mut table = output::table(&["node", "bytes now", "bytes then"], &["node", "bytes now", "bytes then"]);
    for share in &plan.shares {
        table.add_row([share.node.to_string(), share.before.to_string(), share.after.to_string()]);
    }
    out += &format!(
        "\n{}\nthe fullest node holds {:.2} of its share afterwards",
        render(table),
        plan.unevenness
    );
    for note in &plan.notes {
        out += &format!("\nnote: {note}");
    }
    out
}

fn plan_json(plan: &PlanOperationReply) -> Value {
    json!({
        "splits": plan.splits.iter().map(|it| json!({
            "arc": it.arc, "at": hex::encode(&it.at), "new_arc": it.new_arc, "reason": it.reason,
        })).collect::<Vec<_>>(),
        "moves": plan.moves.iter().map(|it| json!({
            "arc": it.arc, "from": it.from, "to": it.to, "bytes": it.bytes, "reason": it.reason,
        })).collect::<Vec<_>>(),
        "bytes": plan.bytes,
        "ideal_bytes": plan.ideal_bytes,
        "shares": plan.shares.iter().map(|it| json!({
            "node": it.node, "before": it.before, "after": it.after,
        })).collect::<Vec<_>>(),
        "unevenness": plan.unevenness,
        "notes": plan.notes,
        "expected_ms": plan.expected_ms,
    })
}

/// An operation as JSON.
pub fn as_json(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "what": wish_words(operation.wish.as_ref()),
        "phase": operation.phase().as_str_name().trim_start_matches("OPERATION_PHASE_").to_lowercase(),
        "arcs": operation.moves.len(),
    })
}

/// An operation as JSON, with how far it is. What is not known, or is not so, is null.
pub fn status_json(status: &OperationStatus) -> Value {
    let mut json = status.operation.as_ref().map_or_else(|| json!({}), as_json);
    for (name, value) in [
        ("driver", json!(status.driver)),
        ("arcs_done", json!(status.arcs_done)),
        ("arcs_total", json!(status.arcs_total)),
        ("arcs_moving", json!(status.arcs_moving)),
        ("entries_done", json!(status.entries_done)),
        ("entries_total", json!(status.entries_total)),
        ("bytes_done", json!(status.bytes_done)),
        ("bytes_total", json!(status.bytes_total)),
        ("bytes_per_second", json!(status.bytes_per_second)),
        ("eta_ms", json!((status.eta_ms > 0).then_some(status.eta_ms))),
        ("blocked", json!((!status.blocked.is_empty()).then_some(&status.blocked))),
    ] {
        json[name] = value;
    }
    json
}

/// What is under way, as JSON.
pub fn list_json(epoch: u64, under_way: &[&OperationStatus]) -> Value {
    let operations: Vec<Value> = under_way.iter().map(|it| status_json(it)).collect();
    json!({ "epoch": epoch, "operations": operations })
}

fn ended_json(ended: &EndedOperation) -> Value {
    json!({
        "id": ended.id,
        "what": wish_words(ended.wish.as_ref()),
        "cancelled": ended.cancelled,
        "refused": ended.refused,
        "epoch": ended.epoch,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;
    use god_proto::v1::PlannedSplit;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        change: ChangeArgs,
    }

    fn parse(line: &str) -> Result<ChangeArgs, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.change)
    }

    #[test]
    fn that_data_are_lost_is_said_beside_a_wish() {
        let change = parse("change --replace 4:6 --lost --id disk").unwrap();
        assert_eq!((change.wish.replace, change.wish.lost, &*change.id), (Some((4, 6)), true, "disk"));
        assert!(parse("change --leave 4 --lost").unwrap().wish.lost);
    }

    #[test]
    fn quorums_are_named_beside_a_number_of_copies() {
        let wish = parse("change --replicas 3 --write-quorum 3 --read-quorum 2").unwrap().wish;
        assert_eq!((wish.replicas, wish.write_quorum, wish.read_quorum), (Some(3), Some(3), Some(2)));
        assert!(parse("change --leave 3 --write-quorum 2").is_err());
        assert!(parse("change --read-quorum 2").is_err());
        assert!(parse("change --weight 3:2 --lost").is_err());
    }

    #[test]
    fn a_plan_says_why_an_arc_is_cut_in_two() {
        let split = PlannedSplit {
            arc: 7,
            at: vec![0, 0, 0, 1].into(),
            new_arc: 31,
            reason: "it is too full".to_owned(),
        };
        let text = plan_text(&PlanOperationReply { splits: vec![split], ..PlanOperationReply::default() });
        let line = text.lines().find(|line| line.contains("it is too full")).unwrap();
        assert!(line.contains('7') && line.contains("31"), "{line:?}");
        let none = plan_text(&PlanOperationReply::default());
        assert!(!none.contains("CUT OFF"), "{none}");
    }

    #[test]
    fn a_change_of_quorums_says_which_and_what_it_waits_for() {
        let wish = ReplicasWish { keyspace: 2, replicas: 3, write_quorum: 1, read_quorum: 3 };
        let wish = Some(Wish { wish: Some(wish::Wish::Replicas(wish)) });
        let mut operation =
            Operation { wish, phase: OperationPhase::Cleaning.into(), ..Operation::default() };
        let told = words(&operation);
        assert!(told.contains("writes ask 1, reads 3; it waits until its quorums are heard of"), "{told}");
        operation.wish = Some(Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: 3, lost: false })) });
        assert!(words(&operation).contains("hands over what is left"));
    }

    #[test]
    fn what_was_cancelled_and_is_not_all_undone_says_why() {
        let mut ended = EndedOperation { cancelled: true, ..EndedOperation::default() };
        assert!(ended_words(&ended).contains(": undone, "));
        ended.refused = "it stopped where it was".to_owned();
        assert!(ended_words(&ended).contains(": not all undone: it stopped where it was, "));
    }

    #[test]
    fn there_is_one_wish_at_a_time() {
        assert!(parse("change --leave 4 --rebalance").is_err());
        assert!(parse("change --lost").is_err());
        assert!(parse("change").is_err());
    }
}
