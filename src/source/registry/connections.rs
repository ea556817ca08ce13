//! How many connections there are at a time: each takes memory, and a registry serves others, too.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most requests that are under way.
pub(super) const MOST: usize = 16;

/// Places for connections.
#[derive(Default)]
pub(super) struct Connections(Arc<(Mutex<usize>, Condvar)>);

/// The place of one; given back when it is dropped.
pub(super) struct Connection(Arc<(Mutex<usize>, Condvar)>);

impl Connections {
    /// A place, once there is one; `None` when there was none for so long.
    pub(super) fn take(&self, patience: Duration) -> Option<Connection> {
        let (taken, free) = &*self.0;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = free.wait_timeout_while(taken, patience, |taken| *taken >= MOST);
        let (mut taken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        *taken += 1;
        Some(Connection(Arc::clone(&self.0)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (taken, free) = &*self.0;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w5_there_are_no_more_connections_than_places() {
        let connections = Connections::default();
        let mut all: Vec<_> = (0..MOST)
            .map(|_| connections.take(Duration::ZERO))
            .collect();
        assert!(all.iter().all(Option::is_some));
        assert!(connections.take(Duration::from_millis(20)).is_none());
        all.pop();
        assert!(connections.take(Duration::from_secs(10)).is_some());
    }
}
