//! What the user is known by at a registry, out of the files that podman, docker and oras write at `login`.
//!
//! Sources: containers-auth.json(5), and the config file of the Docker command line. The first file that
//! knows the registry counts. In each, a helper that is named for the registry comes first, then the entry
//! with the longest path in front of the repository's, then the helper for all. The files are read again
//! whenever a registry refuses what they said, so that a credential may change during a mount's life.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::helper;
use super::secret::{Credential, Secret};
use crate::error::{Error, Result};
use crate::files::small;
use crate::oci::base64;
use crate::printable::printable_path;

/// Largest file of credentials.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How tools call the registry of Docker, which is elsewhere than its name.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What was found, and where: the place is for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `None` where no file knows the registry.
    pub credential: Option<Credential>,
    /// The file, or those that were looked for in vain.
    pub place: String,
}

/// Looks for the credential for a repository of a registry.
///
/// # Errors
/// When a file cannot be read, or a helper fails.
pub fn find(host: &str, repository: &str) -> Result<Found> {
    find_in(&files(), host, repository)
}

fn find_in(files: &[PathBuf], host: &str, repository: &str) -> Result<Found> {
    for file in files {
        let place = printable_path(file);
        let Some(bytes) = small::read(file, MAX_FILE_BYTES)? else {
            continue;
        };
        // The error of the parser could show what stands there.
        let Ok(Value::Object(config)) = serde_json::from_slice(&bytes) else {
            return Err(Error::environment(
                place,
                "is no file of credentials in JSON",
            ));
        };
        if let Some(credential) = find_by(&config, host, repository, &place)? {
            let credential = Some(credential);
            return Ok(Found { credential, place });
        }
    }
    let looked: Vec<_> = files.iter().map(|file| printable_path(file)).collect();
    Ok(Found {
        credential: None,
        place: looked.join(", "),
    })
}

/// Where tools keep them, in the order in which they are asked. A file that the user names is the only one.
fn files() -> Vec<PathBuf> {
    let named = |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    if let Some(file) = named("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = named("HOME");
    let below_home = |dir| home.as_ref().map(|home| home.join(dir));
    let run = named("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
    let user = rustix::process::geteuid().as_raw();
    let run = run.or_else(|| Some(PathBuf::from(format!("/run/containers/{user}"))));
    let config = named("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = named("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    [
        run.map(|dir| dir.join("auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find_by(
    config: &Map<String, Value>,
    host: &str,
    repository: &str,
    place: &str,
) -> Result<Option<Credential>> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_string);
    let helpers = config.get("credHelpers");
    let server = match host {
        "docker.io" => DOCKER_KEY,
        host => host,
    };
    if let Some(helper) = text(helpers.and_then(|helpers| helpers.get(host))) {
        return helper::ask(&helper, server);
    }
    let entries = config.get("auths").and_then(Value::as_object);
    for key in keys(host, repository) {
        let entry = entries.and_then(|entries| entries.get(&key));
        if let Some(credential) = entry
            .map(|entry| of_entry(entry, place))
            .transpose()?
            .flatten()
        {
            return Ok(Some(credential));
        }
    }
    match text(config.get("credsStore")) {
        Some(helper) => helper::ask(&helper, server),
        None => Ok(None),
    }
}

/// What an entry for a repository may be called, the longest first.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    loop {
        keys.push(format!("{host}/{path}"));
        match path.rsplit_once('/') {
            Some((before, _)) => path = before,
            None => break,
        }
    }
    keys.extend([
        host.to_string(),
        format!("https://{host}"),
        format!("https://{host}/v1/"),
    ]);
    if host == "docker.io" {
        keys.push(DOCKER_KEY.into());
    }
    keys
}

/// `None` for an entry that only says that a helper has it.
fn of_entry(entry: &Value, place: &str) -> Result<Option<Credential>> {
    let field = |name| {
        let text = entry.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    if let Some(token) = field("identitytoken") {
        return Ok(Some(Credential::Identity(Secret::new(token))));
    }
    let Some(auth) = field("auth") else {
        return Ok(match (field("username"), field("password")) {
            (Some(user), Some(password)) => Some(Credential::Password {
                user: user.into(),
                password: Secret::new(password),
            }),
            _ => None,
        });
    };
    let decoded = base64::decode(auth).and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.unwrap_or_default();
    match decoded.trim_end_matches('\0').split_once(':') {
        Some((user, password)) => Ok(Some(Credential::Password {
            user: user.into(),
            password: Secret::new(password),
        })),
        None => Err(Error::environment(
            place,
            "has an \"auth\" that is no name and password in base64",
        )),
    }
}

impl Found {
    /// As one process tells it to another.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (user, password, identity) = match &self.credential {
            Some(Credential::Password { user, password }) => {
                (Some(user.as_str()), Some(password.reveal()), None)
            }
            Some(Credential::Identity(token)) => (None, None, Some(token.reveal())),
            None => (None, None, None),
        };
        let place = &self.place;
        json!({ "place": place, "user": user, "password": password, "identity": identity })
            .to_string()
            .into_bytes()
    }

    /// What [`to_bytes`](Found::to_bytes) has made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Found> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| value.get(name)?.as_str().map(str::to_string);
        let credential = match (text("identity"), text("user"), text("password")) {
            (Some(token), ..) => Some(Credential::Identity(Secret::new(token))),
            (None, Some(user), Some(password)) => Some(Credential::Password {
                user,
                password: Secret::new(password),
            }),
            _ => None,
        };
        Some(Found {
            credential,
            place: text("place")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(text: &str, host: &str, repository: &str) -> Result<Found> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        fs::write(&file, text).unwrap();
        find_in(&[dir.path().join("missing"), file], host, repository)
    }

    fn user(text: &str, host: &str, repository: &str) -> Option<String> {
        match found(text, host, repository).unwrap().credential? {
            Credential::Password { user, .. } => Some(user),
            Credential::Identity(token) => Some(token.reveal().into()),
        }
    }

    #[test]
    fn the_longest_path_in_front_of_a_repository_counts() {
        let text = r#"{"auths": {
            "h.x": {"auth": "aG9zdDpw"},
            "h.x/team": {"auth": "dGVhbTpw"},
            "h.x/team/llama": {"username": "model", "password": "p"},
            "https://v.x/v1/": {"identitytoken": "old"}
        }}"#;
        for (repository, expected) in [
            ("other", "host"),
            ("teams/llama", "host"),
            ("team/x", "team"),
            ("team/llama", "model"),
            ("team/llama/sub", "model"),
        ] {
            assert_eq!(user(text, "h.x", repository).as_deref(), Some(expected));
        }
        assert_eq!(user(text, "v.x", "m").as_deref(), Some("old"));
        assert_eq!(user(text, "h.x:5000", "m"), None);
    }

    #[test]
    fn w2_no_message_has_what_a_file_of_credentials_says() {
        for text in [
            r#"{"auths": {"h.x": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"h.x": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": hunter2}"#,
            r#""hunter2""#,
        ] {
            let error = found(text, "h.x", "m").unwrap_err().to_string();
            assert!(!error.contains("unter2"), "{error}");
            assert!(error.contains("auth.json"), "{error}");
        }
        let text = r#"{"auths": {"h.x": {"username": "u", "password": "hunter2"}}}"#;
        let shown = format!("{:?}", found(text, "h.x", "m").unwrap());
        assert!(
            shown.contains("Secret") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_found_is_the_same_in_another_process() {
        for credential in [
            None,
            Some(Credential::Identity(Secret::new("t"))),
            Some(Credential::Password {
                user: "u".into(),
                password: Secret::new("a:b"),
            }),
        ] {
            let place = "f".to_string();
            let found = Found { credential, place };
            assert_eq!(Found::from_bytes(&found.to_bytes()), Some(found));
        }
        assert_eq!(Found::from_bytes(b"{}"), None);
    }
}
