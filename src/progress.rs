//! How long-running work tells how far it is.

/// Called with (bytes done, bytes in total) while work goes on, from any thread.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);
