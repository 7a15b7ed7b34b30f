//! A slot for one frame between the work on a stream and HTTP/2, which takes the frame when it can send it.
//!
//! READERS-APART: what is polled by HTTP/2 only takes frames out. The work has a task of its own, and goes on whether
//! anybody takes them or not, so that a client that does not read holds nothing that others wait for.

use futures::Stream;
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

struct OutboxState<T> {
    frame: Option<T>,
    ended: bool,
    gone: bool,
    /// Who puts frames, and is woken when the reader goes.
    writer: Option<Waker>,
    /// Whether it has one that waits for the slot to be free.
    waits: bool,
    reader: Option<Waker>,
}

/// The end of the work. Dropping it ends the stream, once what is in it was taken.
pub(crate) struct Outbox<T>(Arc<Mutex<OutboxState<T>>>);

/// The end of HTTP/2.
pub struct Outgoing<T>(Arc<Mutex<OutboxState<T>>>);

/// Whether the slot takes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxSlot {
    /// It is free.
    Free,
    /// The last frame was not taken yet; a task that has another one is woken when it is.
    Taken,
    /// Nobody reads any more.
    Gone,
}

/// A new pair.
pub(crate) fn outbox<T>() -> (Outbox<T>, Outgoing<T>) {
    let slot =
        OutboxState { frame: None, ended: false, gone: false, writer: None, waits: false, reader: None };
    let slot = Arc::new(Mutex::new(slot));
    (Outbox(Arc::clone(&slot)), Outgoing(slot))
}

impl<T> Outbox<T> {
    /// Whether a frame may be put. The task is woken when nobody reads any more, and if it `has_more` to put when there
    /// is room: not at each frame that is taken, for nothing.
    pub fn room(&self, cx: &mut Context<'_>, has_more: bool) -> OutboxSlot {
        let mut slot = self.0.lock();
        if slot.gone {
            return OutboxSlot::Gone;
        }
        // Also where it is free: a reader that goes must be noticed.
        if !slot.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            slot.writer = Some(cx.waker().clone());
        }
        slot.waits = has_more && slot.frame.is_some();
        if slot.frame.is_some() { OutboxSlot::Taken } else { OutboxSlot::Free }
    }

    /// Puts a frame where [`Outbox::room`] said that there is room.
    pub fn put(&self, frame: T) {
        let reader = {
            let mut slot = self.0.lock();
            assert!(slot.frame.is_none(), "READERS-APART: a frame is put where there is room for it");
            slot.frame = Some(frame);
            slot.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        let reader = {
            let mut slot = self.0.lock();
            slot.ended = true;
            slot.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let (frame, writer) = {
            let mut slot = self.0.lock();
            let Some(frame) = slot.frame.take() else {
                if slot.ended {
                    return Poll::Ready(None);
                }
                slot.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            (frame, if std::mem::take(&mut slot.waits) { slot.writer.take() } else { None })
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Some(frame))
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        let (frame, writer) = {
            let mut slot = self.0.lock();
            slot.gone = true;
            (slot.frame.take(), slot.writer.take())
        };
        drop(frame);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::{StreamExt, future::poll_fn};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    #[tokio::test]
    async fn frames_are_taken_in_order_and_the_last_one_after_the_work_has_ended() {
        let (work, mut reads) = outbox();
        tokio::spawn(async move {
            for frame in 0..100 {
                poll_fn(|cx| match work.room(cx, true) {
                    OutboxSlot::Taken => Poll::Pending,
                    room => {
                        assert_eq!(room, OutboxSlot::Free);
                        Poll::Ready(())
                    }
                })
                .await;
                work.put(frame);
            }
        });
        for frame in 0..100 {
            assert_eq!(reads.next().await, Some(frame));
        }
        assert_eq!(reads.next().await, None);
    }

    #[tokio::test]
    async fn work_hears_that_its_reader_is_gone() {
        let (work, reads) = outbox::<u8>();
        let working = tokio::spawn(async move {
            work.put(1);
            poll_fn(|cx| match work.room(cx, false) {
                OutboxSlot::Gone => Poll::Ready(()),
                _ => Poll::Pending,
            })
            .await;
        });
        tokio::task::yield_now().await;
        drop(reads);
        working.await.unwrap();
    }

    /// How often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn work_is_woken_at_a_frame_that_is_taken_only_where_it_has_another_one() {
        let (work, mut reads) = outbox::<u8>();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        for (has_more, times) in [(false, 0), (true, 1), (false, 1)] {
            assert_eq!(work.room(&mut cx, has_more), OutboxSlot::Free);
            work.put(1);
            assert_eq!(work.room(&mut cx, has_more), OutboxSlot::Taken);
            assert_eq!(reads.next().await, Some(1));
            assert_eq!(woken.0.load(Ordering::Relaxed), times);
        }
        drop(reads);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2, "it hears that nobody reads any more");
    }
}
