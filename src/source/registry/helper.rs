//! Programs that keep credentials: `docker-credential-NAME get`, which reads the name of a registry and
//! writes JSON.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::secret::{Credential, Secret};
use crate::error::{Error, Result};
use crate::printable::{quoted, shown};

/// How long one may take: it may ask a service in its turn.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);
/// Most bytes of an answer: what a pipe holds, so that a helper that says more stands still, and is ended.
const MAX_BYTES: u64 = 64 << 10;
/// The name of a user that is none: the secret is a token.
const IDENTITY: &str = "<token>";

/// Asks a helper for the credential for a registry; `None` where it has none.
///
/// # Errors
/// When it cannot be run, takes too long, or answers something else. What it says is not repeated: that
/// may be a secret.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credential>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        let name = quoted(name);
        return Err(Error::environment(
            format!("the credential helper {name}"),
            "is no name of a program",
        ));
    }
    let program = format!("docker-credential-{name}");
    run(&program, server, LIMIT)
}

fn run(program: &str, server: &str, limit: Duration) -> Result<Option<Credential>> {
    let failed = |why: &str| Error::environment(shown(program), why);
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Error::failed("run", program, error))?;
    if let Some(mut input) = child.stdin.take() {
        // One that wants no input may have closed it.
        let _ = input.write_all(format!("{server}\n").as_bytes());
    }
    let Some(succeeded) = wait(&mut child, limit) else {
        return Err(failed("did not answer in time"));
    };
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        let read = output.take(MAX_BYTES).read_to_string(&mut answer);
        read.map_err(|_| failed("answered no text"))?;
    }
    if !succeeded {
        // As all of them say it, on standard output.
        return match answer.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed("failed")),
        };
    }
    let answer: Option<Value> = serde_json::from_str(&answer).ok();
    let field = |name| answer.as_ref()?.get(name)?.as_str().map(str::to_string);
    match (field("Username"), field("Secret")) {
        (Some(user), Some(secret)) if user == IDENTITY => {
            Ok(Some(Credential::Identity(Secret::new(secret))))
        }
        (Some(user), Some(secret)) => Ok(Some(Credential::Password {
            user,
            password: Secret::new(secret),
        })),
        _ => Err(failed(
            "answered neither a credential, nor that there is none",
        )),
    }
}

/// Whether it succeeded; `None` for one that had to be ended.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn told(script: &str) -> Result<Option<Credential>> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-test");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        // Another thread's child may hold the file open for writing until it has begun.
        for _ in 0..100 {
            match run(program.to_str().unwrap(), "h.x", Duration::from_millis(500)) {
                Err(error) if error.to_string().contains("busy") => thread::sleep(LOOK),
                result => return result,
            }
        }
        panic!("busy for ever");
    }

    #[test]
    fn helpers_are_asked_by_the_name_of_the_registry() {
        let script = r#"read host; echo "{\"Username\":\"$1\",\"Secret\":\"$host\"}""#;
        let password = Secret::new("h.x");
        let user = "get".to_string();
        assert_eq!(
            told(script).unwrap(),
            Some(Credential::Password { user, password })
        );
        let script = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        let token = Credential::Identity(Secret::new("t"));
        assert_eq!(told(script).unwrap(), Some(token));
        let script = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(told(script).unwrap(), None);
    }

    #[test]
    fn w2_a_helper_that_fails_or_hangs_is_an_error_without_its_words() {
        for (script, why) in [
            ("sleep 60", "in time"),
            ("yes hunter2", "in time"),
            ("echo hunter2; exit 1", "failed"),
            ("echo hunter2", "neither"),
        ] {
            let error = told(script).unwrap_err().to_string();
            assert!(
                error.contains(why) && !error.contains("hunter2"),
                "{script}: {error}"
            );
        }
        assert!(
            ask("../evil", "h.x")
                .unwrap_err()
                .to_string()
                .contains("no name")
        );
    }
}
