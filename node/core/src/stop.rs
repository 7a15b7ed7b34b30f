//! How long-lived tasks and streams learn that the node stops.

use tokio::sync::watch;

/// Tells everyone who holds a [`Stop`] to finish. Dropping it tells them too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Knows whether to finish. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A new pair.
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Tells them.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits until it is told.
    pub async fn stopped(mut self) {
        // An error means that the stopper is gone: that is a stop as well.
        let _gone = self.0.wait_for(|&stopped| stopped).await;
    }

    /// Whether it was told.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
