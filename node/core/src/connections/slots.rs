//! Who holds a door's connection slots, and who loses one.

use super::serve::Times;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::Notify, time::Instant};

/// Connections that lost their slots and have not gone yet, at most. Beyond, newcomers are turned away.
const LEAVING: usize = 64;

/// Why a connection is ended by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It did not say what it wants in time.
    Silent,
    /// It had no request for long.
    Idle,
    /// Another one needed its slot.
    Crowded,
    /// It does not take its answers.
    Unread,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It stays; look again at that time, or when told.
    Until(Instant),
    /// What was begun on it may end.
    Leave(Reason),
    /// It ends at once.
    Close(Reason),
}

/// The slots of one door.
pub(super) struct ConnectionSlots {
    most: usize,
    table: Mutex<Occupied>,
    open: Gauge,
    refused: Counter,
    door: &'static str,
}

#[derive(Default)]
struct Occupied {
    last: u64,
    /// They have not said what they want. In the order in which they came.
    silent: BTreeMap<u64, Arc<ConnectionSlot>>,
    greeted: BTreeMap<u64, Arc<ConnectionSlot>>,
    leaving: usize,
}

impl Occupied {
    fn len(&self) -> usize {
        self.silent.len() + self.greeted.len()
    }
}

impl ConnectionSlots {
    pub fn new(door: &'static str, most: usize) -> Arc<ConnectionSlots> {
        gauge!("god_connections_limit", "door" => door).set(most as f64);
        Arc::new(ConnectionSlots {
            most: most.max(1),
            table: Mutex::default(),
            open: gauge!("god_connections_open", "door" => door),
            refused: counter!("god_connections_refused_total", "door" => door),
            door,
        })
    }

    /// A slot for a newcomer, if need be somebody else's; none where all are in use. Cost: O(log slots), or
    /// O(slots) where all of them have sent requests.
    pub fn take(self: &Arc<Self>) -> Option<HeldSlot> {
        let mut table = self.table.lock();
        if table.len() >= self.most {
            if table.leaving >= LEAVING {
                self.refused.increment(1);
                return None;
            }
            let loser = match table.silent.pop_first() {
                Some((_, silent)) => Some(silent),
                None => {
                    let idle =
                        table.greeted.values().filter_map(|slot| Some((slot.idle_since()?, slot.number)));
                    let longest = idle.min().map(|(_, number)| number);
                    longest.and_then(|number| table.greeted.remove(&number))
                }
            };
            let Some(loser) = loser else {
                self.refused.increment(1);
                return None;
            };
            table.leaving += 1;
            loser.lose();
        }
        table.last += 1;
        let slot = Arc::new(ConnectionSlot::new(table.last));
        table.silent.insert(slot.number, Arc::clone(&slot));
        assert!(table.len() <= self.most, "CONNECTIONS-BOUNDED: no more than there are slots");
        self.open.set(table.len() as f64);
        Some(HeldSlot { slots: Arc::clone(self), slot })
    }

    /// Counts one that the node ends.
    pub fn ended(&self, reason: Reason) {
        let reason = match reason {
            Reason::Silent => "silent",
            Reason::Idle => "idle",
            Reason::Crowded => "crowded",
            Reason::Unread => "unread",
        };
        counter!("god_connections_ended_total", "door" => self.door, "reason" => reason).increment(1);
    }
}

/// A slot, for as long as its connection lasts.
pub(super) struct HeldSlot {
    pub slots: Arc<ConnectionSlots>,
    pub slot: Arc<ConnectionSlot>,
}

impl HeldSlot {
    /// The connection has said what it wants.
    pub fn greeted(&self) {
        // The table is the door's, and this is called for each request.
        if self.slot.state.lock().greeted {
            return;
        }
        let mut table = self.slots.table.lock();
        if let Some(slot) = table.silent.remove(&self.slot.number) {
            self.slot.state.lock().greeted = true;
            table.greeted.insert(slot.number, slot);
        }
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        let mut table = self.slots.table.lock();
        let number = self.slot.number;
        if table.silent.remove(&number).or(table.greeted.remove(&number)).is_none() {
            table.leaving -= 1;
        }
        self.slots.open.set(table.len() as f64);
    }
}

/// What a connection is up to.
pub(super) struct ConnectionSlot {
    number: u64,
    state: Mutex<State>,
    /// Told when the slot is lost.
    pub lost: Notify,
}

struct State {
    born: Instant,
    greeted: bool,
    lost: bool,
    requests: usize,
    /// Since when there is no request.
    idle_since: Instant,
    last: u64,
    /// Requests of which a part of the answer was handed to HTTP, which has not asked for more since.
    unread: BTreeMap<u64, Instant>,
}

impl ConnectionSlot {
    fn new(number: u64) -> ConnectionSlot {
        let now = Instant::now();
        let state = State {
            born: now,
            greeted: false,
            lost: false,
            requests: 0,
            idle_since: now,
            last: 0,
            unread: BTreeMap::new(),
        };
        ConnectionSlot { number, state: Mutex::new(state), lost: Notify::new() }
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.requests == 0).then_some(state.idle_since)
    }

    fn lose(&self) {
        self.state.lock().lost = true;
        self.lost.notify_one();
    }

    /// What is to be done with the connection by now.
    pub fn judge(&self, times: &Times) -> Action {
        let now = Instant::now();
        let state = self.state.lock();
        if state.lost {
            return match state.greeted {
                true => Action::Leave(Reason::Crowded),
                false => Action::Close(Reason::Crowded),
            };
        }
        if !state.greeted {
            let due = state.born + times.handshake;
            return if due <= now { Action::Close(Reason::Silent) } else { Action::Until(due) };
        }
        let oldest = state.unread.values().min().map(|since| *since + times.unread);
        if oldest.is_some_and(|due| due <= now) {
            return Action::Close(Reason::Unread);
        }
        let idle = (state.requests == 0).then(|| state.idle_since + times.idle);
        if idle.is_some_and(|due| due <= now) {
            return Action::Leave(Reason::Idle);
        }
        // What begins to wait after this look is seen by the next one.
        let next = now + times.unread.min(times.idle);
        Action::Until(oldest.into_iter().chain(idle).fold(next, Instant::min))
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Active {
        let mut state = self.state.lock();
        state.requests += 1;
        state.last += 1;
        Active { slot: Arc::clone(self), number: state.last, waits: false }
    }
}

/// A request, until its answer is sent.
pub(super) struct Active {
    slot: Arc<ConnectionSlot>,
    number: u64,
    waits: bool,
}

impl Active {
    /// A part of the answer was handed over to be sent.
    pub fn handed(&mut self) {
        self.waits = true;
        self.slot.state.lock().unread.insert(self.number, Instant::now());
    }

    /// More of it is asked for: what was handed over is on its way.
    pub fn asked(&mut self) {
        if self.waits {
            self.waits = false;
            self.slot.state.lock().unread.remove(&self.number);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.slot.state.lock();
        state.unread.remove(&self.number);
        state.requests -= 1;
        state.idle_since = Instant::now();
    }
}

/// Says what this room counts.
pub(crate) fn describe() {
    describe_gauge!("god_connections_open", "Connections, by door");
    describe_gauge!("god_connections_limit", "The most connections at a time, by door");
    describe_gauge!(
        "god_connections_send_ahead_bytes",
        "Bytes that connections may send ahead of being read, by door"
    );
    describe_counter!("god_connections_refused_total", "Connections for which there was no place, by door");
    describe_counter!(
        "god_connections_ended_total",
        "Connections that the node ended, by door and reason: silent (no handshake in time), idle, crowded (the \
         place was needed), unread (answers were not taken)"
    );
    describe_counter!(
        "god_connections_accept_errors_total",
        "Connections that could not be accepted, by door: mostly for want of descriptors"
    );
}
