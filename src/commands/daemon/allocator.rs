//! What the allocator keeps for itself: it belongs to a process, and so to the program.

#![allow(unsafe_code)]

use rustix::process::Resource;

/// What this program takes of its own accord before it opens a model, in bytes.
pub(crate) const AT_START: u64 = 4 << 20;

/// Has the allocator give large blocks back to the system as soon as they are freed.
///
/// glibc would raise its threshold with the first large block that is freed, and from then on keep
/// such blocks in the heaps of as many threads as there are: memory that no bound counts.
pub(crate) fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: libc::c_int = 256 << 10;
        // SAFETY: mallopt takes two numbers, and refuses those that make no sense.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        // What is small and freed stays in the heap that it came from: let there be few.
        const HEAPS: libc::c_int = 8;
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    }
}

/// Has the allocator give back what it keeps for later.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the allocator does that itself when it likes; it takes its own locks.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Where addresses are limited (`ulimit -v` and `-d`), has all threads share one heap: glibc would
/// give each a reserve of 64 MiB of addresses, which the limit counts.
pub(crate) fn fit_into_limits() {
    let limited = |resource| rustix::process::getrlimit(resource).current.is_some();
    if limited(Resource::As) || limited(Resource::Data) {
        use_one_heap();
    }
}

fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and refuses those that make no sense.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
