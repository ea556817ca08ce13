//! What the client asks of the system besides connections: the addresses of a name, and credentials.
//!
//! A process that has given up the right to read files asks another one ([`ask_instead`]): names are looked
//! up by the files and services of the system, and credentials may be kept by programs.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::credentials::{self, Found};
use crate::error::Result;

/// Who is asked.
pub trait Outside: Send + Sync + 'static {
    /// The addresses of a host.
    ///
    /// # Errors
    /// When there are none.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// As [`credentials::find`].
    ///
    /// # Errors
    /// As [`credentials::find`].
    fn credentials(&self, host: &str, repository: &str) -> Result<Found>;
}

static INSTEAD: OnceLock<Arc<dyn Outside>> = OnceLock::new();

/// From now on all of this process comes from `outside`. The first one stays.
pub fn ask_instead(outside: impl Outside) {
    let _ = INSTEAD.set(Arc::new(outside));
}

/// Who is asked; as [`ask_instead`] says, where it is nobody in particular.
#[derive(Clone, Default)]
pub(super) struct Asked(Option<Arc<dyn Outside>>);

impl Asked {
    /// `None` where this process looks for itself.
    fn outside(&self) -> Option<&Arc<dyn Outside>> {
        self.0.as_ref().or_else(|| INSTEAD.get())
    }

    #[cfg(test)]
    pub(super) fn this(outside: impl Outside) -> Asked {
        Asked(Some(Arc::new(outside)))
    }

    /// The credential for a repository.
    pub(super) fn credentials(&self, host: &str, repository: &str) -> Result<Found> {
        match self.outside() {
            Some(outside) => outside.credentials(host, repository),
            None => credentials::find(host, repository),
        }
    }
}

/// Who looks up names for the HTTP client.
pub(super) struct Names(pub(super) Asked);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let Some(outside) = self.0.outside() else {
            return DefaultResolver::default().resolve(uri, config, timeout);
        };
        let default = match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = outside.addresses(host, uri.port_u16().unwrap_or(default))?;
        let mut addresses = self.empty();
        // As many as the client has room for.
        for address in found.into_iter().take(16) {
            addresses.push(address);
        }
        match addresses.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}
