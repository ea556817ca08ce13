//! Temporary files without names.
//!
//! A process that has given up the right to create files asks another one for them
//! ([`ask_instead`]).

use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// Where one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scratch {
    /// Where temporary files go.
    Temporary,
    /// Where those go that survive a restart.
    Lasting,
}

type Source = Box<dyn Fn(Scratch) -> io::Result<File> + Send + Sync>;

static INSTEAD: OnceLock<Source> = OnceLock::new();

impl Scratch {
    /// A new one, of this process or of the one that is asked instead.
    pub(crate) fn create(self) -> io::Result<File> {
        match INSTEAD.get() {
            Some(source) => source(self),
            None => self.create_here(),
        }
    }

    /// A new one of this process.
    ///
    /// # Errors
    /// Those of the system.
    #[expect(
        clippy::disallowed_methods,
        reason = "in the system's directories for them, without a name from the beginning, or removed at once"
    )]
    pub fn create_here(self) -> io::Result<File> {
        match self {
            Scratch::Temporary => tempfile::tempfile(),
            Scratch::Lasting => tempfile::tempfile_in("/var/tmp"),
        }
    }
}

/// From now on all of this process come from `source`. The first source stays.
pub fn ask_instead(source: impl Fn(Scratch) -> io::Result<File> + Send + Sync + 'static) {
    let _ = INSTEAD.set(Box::new(source));
}
