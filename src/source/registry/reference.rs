//! What a model in a registry is called: `host[:port]/repository[:tag][@digest]`.
//!
//! There is no default host: a name without one is refused, and never looked for at some registry that
//! nobody has named. Without a tag and a digest, `latest` is meant.

use std::fmt;
use std::path::Path;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::printable::quoted;

/// What is put in front by who wants to be sure that no path is meant.
const SCHEME: &str = "oci://";
/// Longest name of a repository with its host, and longest tag (distribution specification).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The name of a model in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With its port, where one is named.
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference, with or without `oci://` in front.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for what is none; says which part is wrong.
    pub fn parse(text: &str) -> Result<Reference> {
        let refuse = |why: &str| {
            let example =
                "expected HOST/REPOSITORY[:TAG][@DIGEST], as in registry.example/team/llama:1.0.0";
            Error::usage(format_args!("{}: {why}; {example}", quoted(text)))
        };
        let name = text.strip_prefix(SCHEME).unwrap_or(text);
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => match digest.parse() {
                Ok(digest) => (name, Some(digest)),
                Err(_) => return Err(refuse("what stands behind the @ is no digest")),
            },
            None => (name, None),
        };
        let Some((host, rest)) = name.split_once('/') else {
            return Err(refuse("names no registry"));
        };
        if !is_named_host(host) {
            let why = "names no registry: its first part is no host, which has a dot or a port, or is localhost";
            return Err(refuse(why));
        }
        if !is_host(host) {
            return Err(refuse("the host is none"));
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(repository) || name.len() > MAX_NAME + MAX_TAG {
            return Err(refuse(
                "a repository is of lower-case letters, digits, and single . _ - / between them",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("a tag is of letters, digits, and . _ -"));
        }
        Ok(Reference {
            host: host.to_string(),
            repository: repository.to_string(),
            tag: tag.map(str::to_string),
            digest,
        })
    }

    /// The reference that an argument means in the place of a path: one with a scheme always, any other
    /// where it is no relative path by its looks. Whoever asks has looked whether there is such a file.
    ///
    /// # Errors
    /// As [`parse`](Reference::parse), where no path can be meant.
    pub fn instead_of(path: &Path) -> Result<Option<Reference>> {
        let Some(text) = path.to_str() else {
            return Ok(None);
        };
        if text.starts_with(SCHEME) {
            return Reference::parse(text).map(Some);
        }
        let host = text.split_once('/').map_or("", |(host, _)| host);
        let is_path = ["", ".", ".."].contains(&host) || text.ends_with(".tar");
        match is_named_host(host) && !is_path {
            // A file that is missing, with a dot in the name of its directory, is told as that.
            true => Ok(Reference::parse(text).ok()),
            false => Ok(None),
        }
    }

    /// The reference that stands behind a scheme; `None` for anything else.
    pub fn explicit(path: &Path) -> Option<Reference> {
        let text = path.to_str().filter(|text| text.starts_with(SCHEME))?;
        Reference::parse(text).ok()
    }

    /// Spelt so that no path is meant, wherever it is read.
    pub fn with_scheme(&self) -> String {
        format!("{SCHEME}{self}")
    }

    /// Where the registry is: host, and port where one is named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository, without the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest that it names.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the registry is asked for: the digest, or else the tag.
    pub(super) fn wanted(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_else(|| "latest".into()),
        }
    }

    /// True where the registry is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        match (&self.tag, &self.digest) {
            (Some(tag), _) => write!(f, ":{tag}")?,
            (None, None) => f.write_str(":latest")?,
            (None, Some(_)) => {}
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Host and port of an authority, without the brackets of an IPv6 address.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

/// True for an authority that is this machine whatever a name server says.
pub(super) fn is_loopback(authority: &str) -> bool {
    let (host, _) = split_port(authority);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What tells a host from the first part of a path.
fn is_named_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    let letters = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    !host.is_empty()
        && host.chars().all(letters)
        && (!host.contains(':') || text.starts_with('['))
        && port.is_none_or(is_port)
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let mut between = false;
        let mut ok = !part.is_empty();
        for c in part.chars() {
            let letter = c.is_ascii_lowercase() || c.is_ascii_digit();
            // "__" and any number of "-" may stand together.
            ok &= letter || "._-".contains(c);
            ok &= letter || !between || "_-".contains(c);
            between = !letter;
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        ok && edge(part.chars().next()) && edge(part.chars().next_back())
    };
    text.len() <= MAX_NAME && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.chars().next().is_some_and(word)
        && text.chars().all(|c| word(c) || ".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = Digest::sha256(b"");
        for (text, written) in [
            ("localhost/m", "localhost/m:latest"),
            (
                "localhost:5000/a/b-c__d.e:1.0",
                "localhost:5000/a/b-c__d.e:1.0",
            ),
            ("oci://registry.example/m", "registry.example/m:latest"),
            ("[::1]:5000/m:x", "[::1]:5000/m:x"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), written);
            let pinned = Reference::parse(&format!("{text}@{digest}")).unwrap();
            assert_eq!(pinned.digest(), Some(&digest));
            assert_eq!(pinned.wanted(), digest.to_string());
        }
        assert_eq!(Reference::parse("h.x/m").unwrap().wanted(), "latest");
    }

    #[test]
    fn w1_what_is_no_reference_is_refused_with_the_part_that_is_wrong() {
        for (text, why) in [
            ("llama", "names no registry"),
            ("team/llama:1", "names no registry"),
            ("h.x/Upper", "a repository"),
            ("h.x/", "a repository"),
            ("h.x/a//b", "a repository"),
            ("h.x/a/../b", "a repository"),
            ("h.x/a..b", "a repository"),
            ("h.x/m:", "a tag"),
            ("h.x/m:a b", "a tag"),
            ("h.x/m@sha256:12", "no digest"),
            ("h.x:0/m", "the host"),
            ("h.x:port/m", "the host"),
            ("user:pass@h.x/m", "no digest"),
            ("h.x?/m", "the host"),
            ("::1/m", "the host"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn w1_what_looks_like_a_path_is_none() {
        let is = |text: &str| {
            Reference::instead_of(Path::new(text))
                .ok()
                .flatten()
                .is_some()
        };
        for text in [
            "registry.example/m",
            "localhost/m",
            "h:5000/m",
            "oci://localhost/m",
        ] {
            assert!(is(text), "{text}");
        }
        for text in [
            "/h.x/m",
            "./h.x",
            "../m",
            "m.tar",
            "h.x/m.tar",
            "dir/m",
            "llama-1.0.0",
            "h.x/M",
        ] {
            assert!(!is(text), "{text}");
        }
        assert!(Reference::instead_of(Path::new("oci://llama")).is_err());
    }

    #[test]
    fn loopback_is_what_no_name_server_is_asked_for() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.example:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
