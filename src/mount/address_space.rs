//! Limits of this process's own memory (`ulimit -v` and `-d`), looked at before anything is mounted.
//!
//! An allocation that such a limit refuses ends the process: the standard library and fuser, whose
//! event loops take their buffers when they start, know no other way. So a mount needs room for all
//! that it may take, and says so where there is none.

use super::options::MountOptions;
use crate::error::{Error, Result};
use crate::memory::promise::{HEADROOM, LEAST_CACHE};
use crate::memory::{room, threads};

/// Buffer of an event loop: fuser 0.18.0 takes the largest request that there is, and a page.
const LOOP_BUFFER_BYTES: u64 = (16 << 20) + 4096;
/// The standard library's stack of a thread, with its guard.
const STACK_BYTES: u64 = (2 << 20) + 4096;

/// Fails when a limit leaves less than a mount with such a cache and so many event loops may take.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment), naming the limit.
pub fn check(options: &MountOptions) -> Result<()> {
    for limit in room::limits() {
        fits(
            limit.most,
            limit.taken,
            options.cache_bytes,
            options.threads,
        )
        .map_err(|why| {
            let (what, command) = (limit.what, limit.command);
            Error::environment(format!("the {what} limit ({command})"), why)
        })?;
    }
    Ok(())
}

fn fits(
    limit: Option<u64>,
    taken: u64,
    cache_bytes: u64,
    threads: usize,
) -> std::result::Result<(), String> {
    let Some(limit) = limit else { return Ok(()) };
    let stacks = STACK_BYTES.saturating_mul(threads::all(threads) as u64);
    let needed = LOOP_BUFFER_BYTES
        .saturating_mul(threads as u64)
        .saturating_add(stacks)
        .saturating_add(HEADROOM)
        .saturating_add(cache_bytes.max(LEAST_CACHE))
        .saturating_add(taken);
    if needed <= limit {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(format!(
        "leaves {} MiB, but a cache of {} MiB and {threads} event loops may take {} MiB; raise it, or \
         ask for less with --cache-size and -o threads=N",
        limit >> 20,
        mib(cache_bytes),
        mib(needed)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_limit_must_leave_room_for_loops_cache_and_promise() {
        assert_eq!(fits(None, u64::MAX, u64::MAX, usize::MAX), Ok(()));
        assert_eq!(fits(Some(1 << 40), 100 * MIB, 256 * MIB, 8), Ok(()));
        let problem = fits(Some(300 * MIB), 10 * MIB, 256 * MIB, 8).unwrap_err();
        assert!(
            problem
                .starts_with("leaves 300 MiB, but a cache of 256 MiB and 8 event loops may take"),
            "{problem}"
        );
        assert_eq!(fits(Some(320 * MIB), 10 * MIB, 64 * MIB, 2), Ok(()));
        // All threads have a stack.
        let stacks = STACK_BYTES * threads::all(2) as u64;
        let all = 2 * LOOP_BUFFER_BYTES + stacks + HEADROOM + 64 * MIB;
        assert_eq!(fits(Some(all), 0, 64 * MIB, 2), Ok(()));
        assert!(fits(Some(all - 1), 0, 64 * MIB, 2).is_err());
        // Numbers that no sum can hold are too much, and no panic.
        assert!(fits(Some(u64::MAX - 1), 1, u64::MAX, usize::MAX).is_err());
        let options = MountOptions::new("/a.tar", "/mnt");
        let limited = room::limits().iter().any(|limit| limit.most.is_some());
        assert!(check(&options).is_ok() || limited);
    }
}
