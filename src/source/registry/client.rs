//! What a registry is asked: requests with whatever it wants to see, through its redirects, tried again until
//! there is an answer or the time is up.
//!
//! - Redirects are followed by hand. What the registry is shown is shown to nobody else.
//! - Where a blob was found is asked first from then on, until that place refuses it (a signed address
//!   expires): then the registry is asked again.
//! - Whoever asks waits at most as long as his [`Patience`]; a registry that is gone is an error of the
//!   environment, and the next request tries again.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use ureq::Body;
use ureq::http::Response;

use super::answer::{self, Answer, Range, Refused};
use super::challenge::{self, Challenge};
use super::connections::Connections;
use super::options::Options;
use super::outside::Asked;
use super::patience::Patience;
use super::reference::Reference;
use super::secret::Secret;
use super::tokens::{Denied, Tokens};
use super::transport::{Transport, Trouble, without_query};
use crate::error::{Error, Result};

/// Redirects from one to the next.
const MAX_REDIRECTS: usize = 5;
/// Addresses of blobs that are remembered, and the longest of them.
pub(super) const PLACES: NonZeroUsize = NonZeroUsize::new(128).unwrap();
pub(super) const MAX_PLACE_BYTES: usize = 8 << 10;

/// What is asked for.
pub(super) struct Ask<'a> {
    /// Below the repository: `blobs/DIGEST`.
    pub(super) path: &'a str,
    pub(super) accept: Option<&'a str>,
    /// A part of it.
    pub(super) range: Option<Range>,
    /// What it is to the user.
    pub(super) what: &'a str,
}

/// A registry, as far as it concerns one repository.
pub(super) struct Client {
    pub(super) timeout: Duration,
    transport: Transport,
    tokens: Tokens,
    repository: String,
    /// Somebody was reached: from then on a registry that is gone may come back.
    reached: AtomicBool,
    /// Where paths were found.
    places: Mutex<LruCache<String, String>>,
    connections: Connections,
}

/// What came of one attempt.
enum Attempt {
    Answered(Response<Body>),
    /// The registry wants to see something else.
    Unauthorized(Option<Challenge>, Option<Secret>),
    /// It may work later; how long the registry wants to be left alone.
    Failed(Trouble, Option<Duration>),
    /// The address that was remembered is no longer good.
    Moved,
}

impl Client {
    pub(super) fn new(reference: &Reference, options: &Options, asked: Asked) -> Result<Client> {
        let repository = match (reference.host(), reference.repository()) {
            // What Docker's own registry calls those that have no owner.
            ("docker.io", name) if !name.contains('/') => format!("library/{name}"),
            (_, name) => name.to_string(),
        };
        Ok(Client {
            timeout: options.timeout,
            transport: Transport::new(reference, options, &asked)?,
            tokens: Tokens::new(reference, &repository, asked),
            repository,
            reached: AtomicBool::new(false),
            places: Mutex::new(LruCache::new(PLACES)),
            connections: Connections::default(),
        })
    }

    /// How long one attempt stands still at most.
    pub(super) fn stall(&self) -> Duration {
        self.transport.stall
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for what the registry does not have, else
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub(super) fn open(&self, ask: &Ask<'_>, patience: &mut Patience) -> Result<Answer> {
        let connection = self.connections.take(patience.left());
        let connection = connection.ok_or_else(|| self.gave_up(ask, "too many wait for it"))?;
        let mut renewed = false;
        loop {
            let (trouble, after) = match self.attempt(ask)? {
                Attempt::Answered(response) => match answer::check(response, ask.range) {
                    Ok(body) => return Ok(Answer::new(body, connection)),
                    Err(Refused::Never(why)) => return Err(Error::environment(ask.what, why)),
                    Err(Refused::Later(why)) => (Trouble::new(why), None),
                },
                Attempt::Moved => continue,
                Attempt::Unauthorized(challenge, shown) => {
                    if std::mem::replace(&mut renewed, true) {
                        return Err(self.tokens.refusal(401));
                    }
                    match self
                        .tokens
                        .renew(challenge, shown.as_ref(), &self.transport)
                    {
                        Ok(()) => continue,
                        Err(Denied::Never(error)) => return Err(error),
                        Err(Denied::Later(trouble)) => {
                            renewed = false;
                            (trouble, None)
                        }
                    }
                }
                Attempt::Failed(trouble, after) => (trouble, after),
            };
            let nobody = trouble.unreached && !self.reached.load(Ordering::Relaxed);
            if trouble.hopeless || nobody {
                return Err(Error::environment(ask.what, trouble.text));
            }
            log::debug!("{}: {}; it is tried again", ask.what, trouble.text);
            if !patience.wait(after) {
                return Err(self.gave_up(ask, &trouble.text));
            }
        }
    }

    /// The error of who has waited long enough.
    pub(super) fn gave_up(&self, ask: &Ask<'_>, why: &str) -> Error {
        let seconds = self.timeout.as_secs();
        Error::environment(
            ask.what,
            format!("{why}; not to be had within {seconds} s (--registry-timeout)"),
        )
    }

    /// Asks once, through redirects.
    fn attempt(&self, ask: &Ask<'_>) -> Result<Attempt> {
        let remembered = self.places().get(ask.path).cloned();
        let mut url = match &remembered {
            Some(place) => place.clone(),
            None => format!(
                "{}/v2/{}/{}",
                self.transport.origin, self.repository, ask.path
            ),
        };
        for _ in 0..MAX_REDIRECTS {
            let is_own = self.transport.is_own(&url);
            let shown = match is_own
                .then(|| self.tokens.current(&self.transport))
                .transpose()
            {
                Ok(shown) => shown.flatten(),
                Err(Denied::Later(trouble)) => return Ok(Attempt::Failed(trouble, None)),
                Err(Denied::Never(error)) => return Err(error),
            };
            let response = match self.send(&url, ask, shown.as_ref()) {
                Ok(response) => response,
                Err(trouble) => {
                    if remembered.is_some() {
                        self.places().pop(ask.path);
                    }
                    return Ok(Attempt::Failed(trouble, None));
                }
            };
            self.reached.store(true, Ordering::Relaxed);
            match response.status().as_u16() {
                200 | 206 => {
                    if !is_own && url.len() <= MAX_PLACE_BYTES {
                        self.places().put(ask.path.to_string(), url);
                    }
                    return Ok(Attempt::Answered(response));
                }
                301 | 302 | 303 | 307 | 308 => {
                    let next = leads_to(&url, &response);
                    answer::drain(response);
                    let Some(next) = next else {
                        let why = "redirects to nowhere".to_string();
                        return Ok(Attempt::Failed(Trouble::new(why), None));
                    };
                    url = next;
                }
                _ if !is_own => {
                    return Ok(self.refused_elsewhere(ask, &url, remembered.is_some(), &response));
                }
                401 => {
                    let challenge = challenge_of(&response);
                    answer::drain(response);
                    return Ok(Attempt::Unauthorized(challenge, shown));
                }
                _ => return self.refused(ask, response),
            }
        }
        let text = "redirects without end".to_string();
        Ok(Attempt::Failed(Trouble::new(text), None))
    }

    fn send(
        &self,
        url: &str,
        ask: &Ask<'_>,
        shown: Option<&Secret>,
    ) -> Result<Response<Body>, Trouble> {
        let range = ask.range;
        let range = range.map(|Range { first, last, .. }| format!("bytes={first}-{last}"));
        let mut headers = Vec::new();
        if let Some(accept) = ask.accept {
            headers.push(("Accept", accept));
        }
        if let Some(range) = &range {
            headers.push(("Range", range.as_str()));
        }
        self.transport.get(url, &headers, shown)
    }

    /// What an answer of somebody else means that is none to the question.
    fn refused_elsewhere(
        &self,
        ask: &Ask<'_>,
        url: &str,
        remembered: bool,
        response: &Response<Body>,
    ) -> Attempt {
        let status = response.status();
        if remembered && status.is_client_error() {
            self.places().pop(ask.path);
            return Attempt::Moved;
        }
        let text = format!("{} answers {}", without_query(url), status.as_u16());
        Attempt::Failed(Trouble::new(text), retry_after(response))
    }

    /// What an answer of the registry means that is none to the question.
    fn refused(&self, ask: &Ask<'_>, response: Response<Body>) -> Result<Attempt> {
        let status = response.status().as_u16();
        match status {
            403 => Err(self.tokens.refusal(status)),
            404 => {
                let why = match ask.path.starts_with("manifests/") {
                    true => {
                        "the registry has no such repository, or no such tag or digest in it (404)"
                    }
                    false => "the registry does not have it (404)",
                };
                Err(Error::not_found(ask.what, why))
            }
            408 | 425 | 429 | 500.. => {
                let text = format!("the registry answers {status}");
                Ok(Attempt::Failed(Trouble::new(text), retry_after(&response)))
            }
            416 => {
                let why = "is shorter in the registry than the manifest says (416)";
                Err(Error::corrupt(ask.what, why))
            }
            _ => Err(Error::environment(
                ask.what,
                format!("the registry answers {status}"),
            )),
        }
    }

    fn places(&self) -> MutexGuard<'_, LruCache<String, String>> {
        // Nothing panics while it is held.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the registry wants to see.
fn challenge_of(response: &Response<Body>) -> Option<Challenge> {
    let headers = response.headers().get_all("www-authenticate");
    challenge::read(headers.iter().filter_map(|value| value.to_str().ok()))
}

/// How long to wait, where that is said in seconds. (As a date it says something about two clocks.)
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The address that a redirect from `url` leads to.
fn leads_to(url: &str, response: &Response<Body>) -> Option<String> {
    let to = response.headers().get("location")?.to_str().ok()?;
    let (scheme, rest) = url.split_once("://")?;
    if to.starts_with("https://") || to.starts_with("http://") {
        return Some(to.to_string());
    }
    if to.starts_with("//") {
        return Some(format!("{scheme}:{to}"));
    }
    let authority = rest.split(['/', '?']).next()?;
    to.starts_with('/')
        .then(|| format!("{scheme}://{authority}{to}"))
}
