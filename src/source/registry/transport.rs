//! One HTTP request: TLS, proxies, time limits. Nothing is followed and nothing is tried again here.
//!
//! - Plain HTTP is spoken to this machine, unless certificates are set up for it, and to others only where the
//!   user allows it; a redirect from https never leads there.
//! - Every step has a time limit: a connection that stands still is given up, and its request made anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use super::options::Options;
use super::outside::{Asked, Names};
use super::reference::{self, Reference};
use super::secret::Secret;
use super::trust;
use crate::error::Result;

/// Connections that stay open while nobody asks.
pub(super) const IDLE: usize = 8;
/// How long they do.
const IDLE_AGE: Duration = Duration::from_secs(60);
/// What is read of a connection at a time, and the longest request.
pub(super) const INPUT_BYTES: usize = 64 << 10;
pub(super) const OUTPUT_BYTES: usize = 16 << 10;
/// Attempts that fit into the time in which a registry must answer.
const ATTEMPTS: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(100);

/// Why a request got no answer.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// What will not change by trying again.
    pub(super) hopeless: bool,
    /// Nobody was reached: where nobody ever was, it is not tried again.
    pub(super) unreached: bool,
}

impl Trouble {
    pub(super) fn new(text: impl Into<String>) -> Trouble {
        Trouble {
            text: text.into(),
            hopeless: false,
            unreached: false,
        }
    }
}

/// What requests are sent by.
pub(super) struct Transport {
    /// For the registry, whose own authorities are nobody else's.
    own: Agent,
    /// For this machine.
    near: Agent,
    others: Agent,
    /// `https://host:port` of the registry, or `http://`.
    pub(super) origin: String,
    /// Others may be asked without TLS, too.
    plain: bool,
    /// How long one attempt stands still at most.
    pub(super) stall: Duration,
}

impl Transport {
    /// For the registry of a reference.
    ///
    /// # Errors
    /// When certificates that are set up for it cannot be read.
    pub(super) fn new(
        reference: &Reference,
        options: &Options,
        asked: &Asked,
    ) -> Result<Transport> {
        let extra = trust::of_host(reference.host(), options.cacert.as_deref())?;
        let plain = options.plain_http || reference.is_loopback() && extra.is_empty();
        let scheme = if plain { "http" } else { "https" };
        // Its address is not its name.
        let host = match reference.host() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let stall = (options.timeout / ATTEMPTS).max(SHORTEST);
        let system = trust::of_system();
        let others = agent(&system, stall, true, asked);
        // Nobody's proxy leads to this machine.
        let near = agent(&system, stall, false, asked);
        let own = match (extra.is_empty(), reference.is_loopback()) {
            (true, false) => others.clone(),
            (true, true) => near.clone(),
            (false, near) => agent(&[extra, system].concat(), stall, !near, asked),
        };
        Ok(Transport {
            own,
            near,
            others,
            origin: format!("{scheme}://{host}"),
            plain,
            stall,
        })
    }

    /// True for an address of the registry itself.
    pub(super) fn is_own(&self, url: &str) -> bool {
        let rest = url.strip_prefix(&self.origin);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// Asks an address. A status of any kind is an answer.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&Secret>,
    ) -> Result<Response<Body>, Trouble> {
        let agent = self.agent(url)?;
        let mut request = agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(secret) = authorization {
            request = request.header("Authorization", secret.reveal());
        }
        request.call().map_err(|error| trouble(error, url))
    }

    /// Sends a form. It has secrets in it, and so has no place in an error.
    pub(super) fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Response<Body>, Trouble> {
        let agent = self.agent(url)?;
        let form = form.iter().copied();
        agent
            .post(url)
            .send_form(form)
            .map_err(|error| trouble(error, url))
    }

    /// Whoever may be asked so.
    fn agent(&self, url: &str) -> Result<&Agent, Trouble> {
        let refuse = |text: String| Trouble {
            hopeless: true,
            ..Trouble::new(text)
        };
        let may = url.starts_with("https://") || self.plain && url.starts_with("http://");
        if !may {
            let to = without_query(url);
            return Err(refuse(format!("leads to {to}, which is not https")));
        }
        let authority = url.split('/').nth(2).unwrap_or_default();
        Ok(match self.is_own(url) {
            true => &self.own,
            false if reference::is_loopback(authority) => &self.near,
            false => &self.others,
        })
    }
}

fn agent(
    roots: &[ureq::tls::Certificate<'static>],
    stall: Duration,
    proxy: bool,
    asked: &Asked,
) -> Agent {
    let provider = rustls::crypto::ring::default_provider();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .root_certs(RootCerts::Specific(Arc::new(roots.to_vec())))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(Proxy::try_from_env().filter(|_| proxy))
        .user_agent(concat!("modeloci/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .max_idle_connections(IDLE)
        .max_idle_connections_per_host(IDLE)
        .max_idle_age(IDLE_AGE)
        .input_buffer_size(INPUT_BYTES)
        .output_buffer_size(OUTPUT_BYTES)
        .timeout_resolve(Some(stall))
        .timeout_connect(Some(stall))
        .timeout_send_request(Some(stall))
        .timeout_send_body(Some(stall))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Names(asked.clone()))
}

/// An address as it may be shown: a signature may stand behind the `?`.
pub(super) fn without_query(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let shown = url.get(..end).unwrap_or_default();
    // Nor what stands in front of an @.
    match shown.rsplit_once('@') {
        Some((_, host)) => crate::printable::shown(host),
        None => crate::printable::shown(shown),
    }
}

/// What happened, in words. Errors of the client name no secret: it has seen the addresses, of which none is
/// repeated here.
fn trouble(error: ureq::Error, url: &str) -> Trouble {
    let uri: Option<Uri> = url.parse().ok();
    let authority = uri
        .as_ref()
        .and_then(|uri| uri.authority())
        .map(|at| at.as_str());
    // What stands in front of an @ is a secret.
    let authority = authority.unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, _) = reference::split_port(authority);
    match error {
        ureq::Error::HostNotFound => Trouble {
            unreached: true,
            ..Trouble::new(format!("the name {host} is not known"))
        },
        ureq::Error::Timeout(ureq::Timeout::Resolve) => Trouble {
            unreached: true,
            ..Trouble::new(format!("the name {host} cannot be looked up in time"))
        },
        ureq::Error::Timeout(_) => Trouble::new(format!("{authority} does not answer in time")),
        ureq::Error::Rustls(error) => of_tls(&error.to_string(), authority),
        ureq::Error::Io(error) => of_io(&error, host, authority),
        ureq::Error::Protocol(_) => Trouble::new(format!("{authority} answers what is no HTTP")),
        ureq::Error::ConnectionFailed => Trouble {
            unreached: true,
            ..Trouble::new(format!("{authority} cannot be connected to"))
        },
        _ => Trouble {
            hopeless: true,
            ..Trouble::new(format!("{authority} cannot be asked"))
        },
    }
}

fn of_io(error: &io::Error, host: &str, authority: &str) -> Trouble {
    let unreached = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
    );
    // What the resolver of the standard library says has no kind of its own.
    let unknown = error.to_string().contains("failed to lookup address");
    match error.kind() {
        io::ErrorKind::InvalidData => of_tls(&error.to_string(), authority),
        _ if unknown => Trouble {
            unreached: true,
            ..Trouble::new(format!("the name {host} is not known"))
        },
        _ => Trouble {
            unreached,
            ..Trouble::new(format!(
                "{authority}: {}",
                crate::printable::shown(&error.to_string())
            ))
        },
    }
}

fn of_tls(why: &str, authority: &str) -> Trouble {
    let advice = match why {
        _ if why.contains("UnknownIssuer") => {
            "; --cacert names the file of its authority, /etc/containers/certs.d/HOST one for all"
        }
        _ if why.contains("corrupt message") || why.contains("InvalidContentType") => {
            "; if it speaks no TLS, --plain-http allows that"
        }
        _ => "",
    };
    let why = crate::printable::shown(why);
    Trouble {
        hopeless: true,
        ..Trouble::new(format!("TLS with {authority} failed: {why}{advice}"))
    }
}
