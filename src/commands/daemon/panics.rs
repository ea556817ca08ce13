//! The panic hook of a process that serves.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use modeloci::mount::parts;

use super::events::Event;

/// fuser 0.18.0 does not notice that an event loop has died: the mount would hang once all have.
pub(crate) fn report_dead_loops(threads: usize, events: Sender<Event>) {
    let alive = AtomicUsize::new(threads);
    install_hook(move |thread| {
        if parts::is_event_loop(thread) && alive.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = events.send(Event::LoopsDied);
        }
    });
}

/// Logs every panic instead of writing to stderr, which may be closed or full, and calls
/// `thread_died` for each one that no guard catches.
fn install_hook(thread_died: impl Fn(&str) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = info
            .location()
            .map(|l| format!("{}:{}", l.file(), l.line()));
        log::error!(
            "bug: thread {name} panicked at {}: {}",
            place.as_deref().unwrap_or("an unknown place"),
            info.payload()
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message"),
        );
        if !parts::panic_is_contained() {
            thread_died(name);
        }
    }));
}
