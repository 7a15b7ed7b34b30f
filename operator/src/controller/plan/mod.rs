//! What to do next: a pure function from what was seen and what is wished for to one step.
//!
//! It is asked anew after each step, so a crash, a lost reply or a change of mind needs no rule of its own: what was
//! done is seen, what was not is planned again. It destroys on positive evidence alone (`world::evidence`), and never
//! two things at once. The rules are asked in the order of [`plan`]; the first that has a step is followed.
//!
//! - `identity`: which cluster this is, and whose data are on which volume.
//! - `birth`: sets, waking and hibernating, the founding.
//! - `change`: operations on the ring: who joins, makes up for lost data, is replaced, weighs something else.
//! - `size`: growing, and the way out: leave, then one pod fewer.
//! - `volumes`: quarantine, deletion, expansion.
//! - `rollout`: restarts, one node at a time.

mod birth;
mod change;
mod identity;
mod rollout;
mod size;
mod step;
mod volumes;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::model;

pub use change::OPERATION_REFUSED;
pub use step::{Step, VolumeRef};

use super::world::{Desired, Observed};

/// What to do next, and what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do next.
    pub next: Next,
    /// Why something does not go on; the rest may.
    pub blocked: Option<Blocked>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This step.
    Do(Step),
    /// Nothing, until what is said has happened.
    Wait(String),
    /// Nothing: it is as it should be.
    Rest,
}

/// Why something does not go on, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// In a word.
    pub reason: &'static str,
    /// Why.
    pub message: String,
    /// What to do.
    pub action: String,
}

/// What one rule says.
enum Decision {
    /// Nothing to do here.
    Pass,
    /// This comes next.
    Do(Step),
    /// Nothing after this rule may be done before that has happened.
    Wait(String),
    /// This rule's matter does not go on; others may.
    Blocked(Blocked),
    /// Nothing goes on.
    Stop(Blocked),
}

type Rule = fn(&Observed, &Desired) -> Decision;

fn blocked(reason: &'static str, message: impl Into<String>, action: impl Into<String>) -> Blocked {
    Blocked { reason, message: message.into(), action: action.into() }
}

/// The rules, in their order.
const RULES: [Rule; 28] = [
    identity::conflict,
    identity::record,
    identity::mark,
    birth::hibernate,
    birth::sets,
    birth::wake,
    rollout::unstick,
    rollout::stuck,
    birth::found,
    size::drop_last,
    volumes::tidy,
    change::undecided,
    change::cancel,
    change::make_up_meanwhile,
    change::under_way,
    change::make_up,
    volumes::unclaimed,
    change::replace,
    change::weigh,
    change::join,
    size::grow,
    change::keyspaces,
    size::leave,
    volumes::recycle,
    rollout::restart,
    volumes::expand,
    birth::remove_sets,
    rollout::missing,
];

/// What to do next.
pub fn plan(observed: &Observed, desired: &Desired) -> Plan {
    plan_past(observed, desired, None)
}

/// A step that the API server or the ring did not want to take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The step.
    pub step: Step,
    /// Why.
    pub why: String,
}

/// What to do next, past a step that was refused a moment ago: it is in the way of its own matter only.
pub fn plan_past(observed: &Observed, desired: &Desired, refusal: Option<&Refusal>) -> Plan {
    if desired.paused {
        let next = Next::Wait("spec.paused is set".to_owned());
        return Plan { next, blocked: None };
    }
    let mut in_the_way = None;
    for rule in RULES {
        match rule(observed, desired) {
            Decision::Pass => {}
            Decision::Do(step) if refusal.is_some_and(|refusal| refusal.step == step) => {
                let why = refusal.map(|refusal| refusal.why.as_str()).unwrap_or_default();
                in_the_way.get_or_insert(blocked(
                    "StepRefused",
                    format!("{}: {why}", step.describe()),
                    "change what stands in the way, or the spec",
                ));
            }
            Decision::Do(step) => return Plan { next: Next::Do(step), blocked: in_the_way },
            Decision::Wait(why) => return Plan { next: Next::Wait(why), blocked: in_the_way },
            Decision::Blocked(why) => {
                in_the_way.get_or_insert(why);
            }
            Decision::Stop(why) => {
                // What is in the way of what comes first is what somebody should look at.
                return Plan { next: Next::Wait(why.message.clone()), blocked: in_the_way.or(Some(why)) };
            }
        }
    }
    Plan { next: Next::Rest, blocked: in_the_way }
}
