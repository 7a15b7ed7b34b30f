//! Panics in tasks: tokio keeps them for whoever waits for the task, and nobody waits for a node's.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    /// What panicked on this thread: a run has a thread for itself while it lasts.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on, what panics on this thread is kept.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            before(info);
        }));
    });
    SEEN.with_borrow_mut(Vec::clear);
}

/// What panicked since.
pub fn seen() -> Vec<String> {
    SEEN.with_borrow_mut(std::mem::take)
}
