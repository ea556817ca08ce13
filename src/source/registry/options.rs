//! How to reach registries.

use std::path::PathBuf;
use std::time::Duration;

/// How long a registry may take that is not told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Ask without TLS (`--plain-http`).
    pub plain_http: bool,
    /// A file of authorities that are trusted besides those of the system (`--cacert`).
    pub cacert: Option<PathBuf>,
    /// How long a registry may give no answer until that is an error (`--registry-timeout`).
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            plain_http: false,
            cacert: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}
