//! Waits that end: each says what it waited for, and what it saw last.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks until what is seen is what is waited for. `Err` of a look says what is there instead.
///
/// # Errors
/// After `limit`, with what was seen last.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let since = Instant::now();
    let mut told = String::new();
    loop {
        let seen = match look().await {
            Ok(found) => {
                println!("  {what}: after {:.1} s", since.elapsed().as_secs_f64());
                return Ok(found);
            }
            Err(error) => format!("{error:#}"),
        };
        if since.elapsed() >= limit {
            anyhow::bail!("waited {} s in vain for {what}; at last: {seen}", limit.as_secs());
        }
        if seen != told {
            println!("    {:>5.1} s  {seen}", since.elapsed().as_secs_f64());
            told = seen;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
