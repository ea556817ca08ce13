//! sync_file_range(2): only bytes are written back, and no journal with them, nor a disk's own cache.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use rustix::io::{Errno, Result};

/// What is done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The kernel begins to write them.
    Start,
    /// They are written, and with them what changed meanwhile.
    Finish,
}

pub(super) fn sync_file_range(file: &File, range: &Range<u64>, step: Step) -> Result<()> {
    let flags = match step {
        Step::Start => libc::SYNC_FILE_RANGE_WRITE,
        Step::Finish => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let offset = i64::try_from(range.start).map_err(|_| Errno::OVERFLOW)?;
    let length = range.end.saturating_sub(range.start);
    let length = i64::try_from(length).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: it takes an open descriptor and integers, and touches no memory of this process.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    match result {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }
}
