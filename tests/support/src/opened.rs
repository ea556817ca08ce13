//! Whether anybody opens a file that nobody should come to.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// Files that are watched.
pub struct Opened(OwnedFd);

impl Opened {
    /// Watches files from now on.
    pub fn of<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Opened {
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for file in files {
            add_watch(&events, file.as_ref(), WatchFlags::OPEN).unwrap();
        }
        Opened(events)
    }

    /// True when one of them was opened since they are watched, or since this was asked.
    pub fn any(&self) -> bool {
        match rustix::io::read(&self.0, &mut [0; 4096]) {
            Ok(_) => true,
            Err(Errno::AGAIN) => false,
            Err(errno) => panic!("{errno}"),
        }
    }
}
