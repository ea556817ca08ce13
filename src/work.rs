//! Long-running work: how it tells how far it is, and on how many processors it may be done.

use std::sync::OnceLock;
use std::thread;

/// Called with (bytes done, bytes in total) while work goes on, from any thread.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Processors that this process may use.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| {
        pretended().unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    })
}

/// Test builds pretend to have more processors than there are: what is bounded must be so on any machine.
fn pretended() -> Option<usize> {
    match cfg!(debug_assertions) {
        true => std::env::var("MODELOCI_TEST_CORES").ok()?.parse().ok(),
        false => None,
    }
}
