//! Asks the other nodes again and again whether they are there, how far their clocks are off, and what they know.

use super::{Liveness, NewerRing, PeerState};
use crate::{
    peer::{Call, CallError, Target, Transport},
    ring::CurrentRing,
    seam::{Seams, Wall},
    stop::Stop,
    version::{Clock, Offsets, Sample},
};
use futures::future::join_all;
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{Ping, Pong, request, response},
};
use metrics::counter;
use std::{sync::Arc, time::Duration};
use tokio::time::{self, Instant};

/// The most nodes asked in a round. Of a larger cluster each round asks the next so many; gossip covers the rest.
const AT_ONCE: usize = 32;
/// Samples from before the wall was set are worth nothing; less than this is taken for drift.
const STEP_US: u64 = 50_000;

/// Pings the other nodes of the ring.
pub struct Pinger {
    /// Between two rounds, give or take a tenth; also how long a node may take to answer.
    pub interval: Duration,
    /// This node's number.
    pub me: NodeId,
    /// Who is to be asked.
    pub ring: CurrentRing,
    /// The way to them.
    pub transport: Arc<dyn Transport>,
    /// What comes of it.
    pub liveness: Arc<Liveness>,
    /// The clocks.
    pub offsets: Arc<Offsets>,
    /// This node's own, which is compared with them.
    pub clock: Arc<Clock>,
    /// Told of newer rings.
    pub newer: NewerRing,
    /// The world.
    pub seams: Seams,
}

/// Answers a ping. Both times are of this node's wall; `received_us` is from when the request came in.
pub fn pong(received_us: u64, wall: &dyn Wall, epoch: Epoch, ready: bool) -> Pong {
    Pong { received_us, replied_us: wall.now_us(), epoch: epoch.0, ready }
}

/// What one round leaves for the next.
#[derive(Default)]
struct Rounds {
    /// How many nodes were asked so far, in all.
    asked: usize,
    /// The wall, and the time since start, at the last round.
    last: Option<(u64, Instant)>,
    alarm: Option<String>,
    /// How often the wall was set, as of the last round.
    steps: u64,
}

impl Pinger {
    /// Goes on until the node stops. A node that hangs delays no other: all of a round are asked at once, and a
    /// round ends by its interval.
    pub async fn run(self, stop: Stop) {
        let stopped = stop.stopped();
        tokio::pin!(stopped);
        let mut rounds = Rounds::default();
        loop {
            let began = Instant::now();
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = self.round(&mut rounds) => {}
            }
            let tenth = self.interval / 10;
            let jitter = Duration::from_micros(self.seams.entropy.below(2 * tenth.as_micros() as u64 + 1));
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = time::sleep_until(began + self.interval - tenth + jitter) => {}
            }
        }
    }

    async fn round(&self, rounds: &mut Rounds) {
        let Some(ring) = self.ring.get() else { return };
        self.liveness.keep(|node| ring.node(node).is_some());
        self.forget_before_step(rounds);
        let steps = self.clock.steps();
        if steps != rounds.steps {
            rounds.steps = steps;
            self.offsets.keep(|_| false);
        }
        let others: Vec<NodeId> =
            ring.nodes().iter().map(|node| NodeId(node.number)).filter(|node| *node != self.me).collect();
        self.offsets.keep(|node| others.contains(&node));
        let count = others.len().min(AT_ONCE);
        let first = rounds.asked;
        rounds.asked = rounds.asked.wrapping_add(count);
        // An answer is fresh for two of the node's turns.
        let turns = others.len().div_ceil(AT_ONCE).max(1) as u32;
        let trust = self.interval * 2 * turns;
        let asked = others.iter().cycle().skip(first.checked_rem(others.len()).unwrap_or(0)).take(count);
        join_all(asked.map(|node| self.ping(*node, trust))).await;
        let in_ms = |(near, far): (i64, i64)| (near / 1_000, far / 1_000);
        self.clock.judge(steps, self.offsets.own_ahead_of_middle_us().map(in_ms), others.is_empty());
        self.liveness.show();
        self.raise_alarm(&mut rounds.alarm);
    }

    async fn ping(&self, node: NodeId, trust: Duration) {
        let (began, sent_us) = (Instant::now(), self.seams.wall.now_us());
        let ping = Ping { sent_us, epoch: self.ring.epoch().0 };
        let call = Call { epoch: 0, arcs: 0, timeout: self.interval, body: request::Body::Ping(ping) };
        match self.transport.call(Target::Node(node), call).await {
            Ok(response::Body::Pong(pong)) => self.answered(node, trust, &pong, (began, sent_us)),
            // It refuses, but it is there.
            Err(CallError::Refused(_)) => self.liveness.answered(node, trust),
            Ok(_) | Err(_) => {
                counter!("god_membership_pings_missed_total", "peer" => node.to_string()).increment(1);
                self.liveness.missed(node);
                if self.liveness.state(node) == PeerState::Down {
                    // Clocks drift: what was measured before it went is worth nothing.
                    self.offsets.keep(|known| known != node);
                    self.liveness.update(node, |peer| {
                        (peer.is_ready, peer.clock_ahead_us) = (None, None);
                    });
                }
            }
        }
    }

    fn answered(&self, node: NodeId, trust: Duration, pong: &Pong, (began, sent_us): (Instant, u64)) {
        self.liveness.answered(node, trust);
        self.newer.heard(Target::Node(node), Epoch(pong.epoch));
        let heard_us = sent_us + began.elapsed().as_micros() as u64;
        let stepped = self.seams.wall.now_us().abs_diff(heard_us) > STEP_US;
        let sample = Sample::of(sent_us, pong.received_us, pong.replied_us, heard_us);
        let clock = (!stepped).then(|| self.offsets.add(node, sample));
        self.liveness.update(node, |peer| {
            peer.is_ready = Some(pong.ready);
            // As TCP smooths it: RFC 6298, section 2.
            let latest = sample.round_trip;
            peer.round_trip = Some(peer.round_trip.map_or(latest, |smooth| (smooth * 7 + latest) / 8));
            if let Some(best) = clock {
                peer.clock_ahead_us = Some(best.ahead_us);
            }
        });
    }

    /// Whoever sets this node's wall makes all estimates wrong by as much.
    fn forget_before_step(&self, rounds: &mut Rounds) {
        let (now_us, now) = (self.seams.wall.now_us(), Instant::now());
        let stepped = rounds.last.is_some_and(|(wall_us, at)| {
            (wall_us + now.duration_since(at).as_micros() as u64).abs_diff(now_us) > STEP_US
        });
        if stepped {
            tracing::info!("this node's wall clock was set: the peers' clocks are measured anew");
            self.offsets.keep(|_| false);
        }
        rounds.last = Some((now_us, now));
    }

    fn raise_alarm(&self, raised: &mut Option<String>) {
        let alarm = self.offsets.alarm();
        if alarm.is_some() != raised.is_some() {
            if let Some(alarm) = &alarm {
                tracing::warn!("{alarm}");
            } else {
                tracing::info!("this node's clock is near the others' again");
            }
        }
        *raised = alarm;
    }
}
