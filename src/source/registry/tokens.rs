//! What a registry is shown: a token that it has others give, or name and password.
//!
//! A token is kept until it is about to expire. When the registry refuses what it was shown, the credentials
//! are read again, whatever the files said before, and a token is asked for anew: once for each refusal.

use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use super::challenge::{Bearer, Challenge};
use super::credentials::Found;
use super::outside::Asked;
use super::reference::Reference;
use super::secret::{Credential, Secret};
use super::transport::{Transport, Trouble, without_query};
use crate::error::{Error, Result};
use crate::oci::base64;

/// Largest answer of a server that gives tokens.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How long a token lives that does not say it (distribution specification of tokens).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest life that is believed.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Such a part of its life is kept in reserve.
const RESERVE: u32 = 5;

/// What is shown, and how to get more of it.
pub(super) struct Tokens {
    /// As the user calls it, and the repository: by these credentials are found.
    host: String,
    path: String,
    /// As the registry calls it.
    repository: String,
    asked: Asked,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The header.
    shown: Option<Secret>,
    /// From then on it is not shown any more.
    until: Option<Instant>,
    challenge: Option<Challenge>,
    found: Option<Found>,
}

/// Why there is nothing to show.
pub(super) enum Denied {
    /// It may be had later.
    Later(Trouble),
    Never(Error),
}

impl Tokens {
    pub(super) fn new(reference: &Reference, repository: &str, asked: Asked) -> Tokens {
        Tokens {
            host: reference.host().to_string(),
            path: reference.repository().to_string(),
            repository: repository.to_string(),
            asked,
            state: Mutex::default(),
        }
    }

    /// What to show now; `None` until the registry has asked for something.
    pub(super) fn current(&self, transport: &Transport) -> Result<Option<Secret>, Denied> {
        let mut state = self.lock();
        let is_over = state.until.is_some_and(|until| Instant::now() >= until);
        if let (true, Some(challenge)) = (is_over, state.challenge.clone()) {
            self.read_credentials(&mut state)?;
            self.obtain(&mut state, challenge, transport)?;
        }
        Ok(state.shown.clone())
    }

    /// Gets something else to show, after the registry has refused what was shown. Who comes late finds what
    /// another one has got. Others wait meanwhile: they would be refused, too.
    pub(super) fn renew(
        &self,
        challenge: Option<Challenge>,
        refused: Option<&Secret>,
        transport: &Transport,
    ) -> Result<(), Denied> {
        let mut state = self.lock();
        if state.shown.as_ref() != refused {
            return Ok(());
        }
        let Some(challenge) = challenge.or_else(|| state.challenge.clone()) else {
            let why = "is refused (401), and the registry does not say what it wants to see";
            return Err(Denied::Never(Error::environment("access", why)));
        };
        self.read_credentials(&mut state)?;
        self.obtain(&mut state, challenge, transport)
    }

    fn read_credentials(&self, state: &mut State) -> Result<(), Denied> {
        let found = self.asked.credentials(&self.host, &self.path);
        state.found = Some(found.map_err(Denied::Never)?);
        Ok(())
    }

    /// Says what a user can do about a refusal.
    pub(super) fn refusal(&self, status: u16) -> Error {
        let state = self.lock();
        self.refused(&state, &format!("({status})"))
    }

    fn refused(&self, state: &State, what: &str) -> Error {
        let host = &self.host;
        let why = match &state.found {
            Some(Found {
                credential: Some(_),
                place,
            }) => {
                format!(
                    "the credential for {host} in {place} does not open it {what}; log in again"
                )
            }
            Some(Found { place, .. }) => format!(
                "it is not open to everybody {what}, and no credential for {host} is in {place}; \
                 `podman login {host}` makes one, and so do docker and oras"
            ),
            None => format!("{host} does not let us read it {what}"),
        };
        Error::environment("access denied", why)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obtain(
        &self,
        state: &mut State,
        challenge: Challenge,
        transport: &Transport,
    ) -> Result<(), Denied> {
        let credential = state
            .found
            .as_ref()
            .and_then(|found| found.credential.clone());
        let (shown, life) = match (&challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                (basic(&user, &password), None)
            }
            (Challenge::Basic, _) => return Err(Denied::Never(self.refused(state, "(401)"))),
            (Challenge::Bearer(bearer), credential) => {
                let (token, life) = self.token(state, bearer, credential, transport)?;
                let header = Secret::new(format!("Bearer {}", token.reveal()));
                (header, Some(life - life / RESERVE))
            }
        };
        state.shown = Some(shown);
        state.until = life.map(|life| Instant::now() + life);
        state.challenge = Some(challenge);
        Ok(())
    }

    /// Asks the server that the registry names for a token.
    fn token(
        &self,
        state: &State,
        bearer: &Bearer,
        credential: Option<Credential>,
        transport: &Transport,
    ) -> Result<(Secret, Duration), Denied> {
        let pull = format!("repository:{}:pull", self.repository);
        let scope = bearer.scope.as_deref().unwrap_or(&pull);
        let service = bearer.service.as_deref().unwrap_or_default();
        let realm = bearer.realm.as_str();
        let answer = match credential {
            Some(Credential::Identity(token)) => transport.post(
                realm,
                &[
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "modeloci"),
                    ("scope", scope),
                    ("refresh_token", token.reveal()),
                ],
            ),
            credential => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let (service, scope) = (encoded(service), encoded(scope));
                let url = format!("{realm}{separator}service={service}&scope={scope}");
                let header = match credential {
                    Some(Credential::Password { user, password }) => Some(basic(&user, &password)),
                    _ => None,
                };
                transport.get(&url, &[], header.as_ref())
            }
        };
        let at = without_query(realm);
        let response = answer.map_err(Denied::Later)?;
        let status = response.status().as_u16();
        match status {
            200 => {}
            400 | 401 | 403 => {
                let what = format!("({status} of {at})");
                return Err(Denied::Never(self.refused(state, &what)));
            }
            429 | 500.. => {
                let text = format!("{at} answers {status}");
                return Err(Denied::Later(Trouble::new(text)));
            }
            _ => {
                let why = format!("answers {status} instead of a token");
                return Err(Denied::Never(Error::environment(at, why)));
            }
        }
        read_token(response).map_err(|why| Denied::Later(Trouble::new(format!("{at} {why}"))))
    }
}

fn read_token(response: Response<Body>) -> Result<(Secret, Duration), &'static str> {
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    let read = body.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
    read.map_err(|_| "broke off its answer")?;
    let answer: Value = serde_json::from_slice(&bytes).map_err(|_| "answers what is no JSON")?;
    let text = |name| {
        answer
            .get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let token = text("token").or_else(|| text("access_token"));
    // What cannot stand in a header would be an error that shows it.
    let visible = |token: &&str| token.bytes().all(|b| (0x21..0x7f).contains(&b));
    let token = token.filter(visible).ok_or("gives no token")?;
    let life = answer.get("expires_in").and_then(Value::as_u64);
    let life = life.map_or(DEFAULT_LIFE, Duration::from_secs);
    Ok((Secret::new(token), life.min(LONGEST_LIFE)))
}

fn basic(user: &str, password: &Secret) -> Secret {
    let both = format!("{user}:{}", password.reveal());
    Secret::new(format!("Basic {}", base64::encode(both.as_bytes())))
}

/// As a part of a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
