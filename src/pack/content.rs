//! What is no part of a model, though it lies in its directory: what a download left unfinished, and
//! what looks like a secret.
//!
//! Names decide first; of small files the beginning is read, too, and of an index of shards all of
//! it. A file is looked at as it will be packed: opened below the held root, and only as what the
//! walk saw, so that nothing can be put in its place afterwards.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::options::PackOptions;
use super::plan::Settings;
use super::tree::{InputFile, Tree};
use crate::error::{Error, Result};
use crate::files::calls;
use crate::limits;
use crate::printable::printable_path;

/// How much is read of a small file: more than a pointer of git-lfs or a token has.
const HEAD_BYTES: u64 = 1024;
/// Private keys are no larger; of larger files nothing is read but by their names.
const SMALL_BYTES: u64 = 16 << 10;
/// How much is read of a file whose name is one of a key: certificates may stand before it.
const KEY_BYTES: u64 = 64 << 10;
/// How many findings a message lists.
const LISTED: usize = 10;

/// How the files of unfinished downloads end: of the Hugging Face client, of browsers and wget-like
/// tools, and of aria2 (which keeps its state beside the file).
const UNFINISHED: [&str; 3] = [".incomplete", ".part", ".aria2"];

const UNFINISHED_DOWNLOAD: &str = "is an incomplete download";

/// The first words of a pointer. Source: git-lfs, "docs/spec.md"; the second is its old name.
const POINTERS: [&str; 2] = [
    "version https://git-lfs.github.com/spec/",
    "version https://hawser.github.com/spec/",
];

/// Files that hold nothing but secrets.
const SECRET_NAMES: [&str; 15] = [
    ".env",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".htpasswd",
    ".pgpass",
    ".pypirc",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "id_rsa",
    "kaggle.json",
    "stored_tokens",
];
/// The same, by the end of the path.
const SECRET_PATHS: [&str; 3] = [".aws/credentials", ".docker/config.json", ".kube/config"];
/// Containers of private keys.
const KEY_CONTAINERS: [&str; 3] = [".p12", ".pfx", ".ppk"];
/// Files that may hold a private key.
const KEY_FILES: [&str; 3] = [".pem", ".key", ".p8"];
/// An environment file of these is there to be copied and filled in.
const ENV_SAMPLES: [&str; 4] = ["dist", "example", "sample", "template"];
/// Files that hold one token, with or without `.txt`.
const TOKEN_NAMES: [&str; 8] = [
    "token",
    ".token",
    "hf_token",
    ".hf_token",
    "huggingface_token",
    "access_token",
    "api_key",
    ".api_key",
];
/// How tokens begin.
const TOKEN_PREFIXES: [&str; 7] = [
    "hf_",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "sk-",
    "xoxb-",
];
/// Shorter words behind such a prefix are none.
const TOKEN_BYTES: usize = 16;

/// Why a file should not be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Incomplete,
    Secret,
}

/// Refuses a tree that is incomplete or holds secrets. What the options allow is a warning.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) names the files and the option.
pub(super) fn check(tree: &mut Tree, options: &PackOptions, settings: &Settings) -> Result<()> {
    let unfinished = tree.unfinished.iter();
    let mut findings: Vec<(Class, String)> = unfinished
        .map(|path| {
            (
                Class::Incomplete,
                format!("\"{path}\" {UNFINISHED_DOWNLOAD}"),
            )
        })
        .collect();
    for file in &tree.files {
        settings.check_cancelled(&tree.root_path)?;
        look(tree, file, &mut findings)?;
    }
    let allowed = |class: Class| match class {
        Class::Incomplete => options.allow_incomplete,
        Class::Secret => options.allow_secrets,
    };
    let (warned, refused): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|(class, _)| allowed(*class));
    if !refused.is_empty() {
        let classes: BTreeSet<Class> = refused.iter().map(|(class, _)| *class).collect();
        let options: Vec<&str> = classes.into_iter().map(Class::option).collect();
        let pack = match options.len() {
            1 => "packs",
            _ => "pack",
        };
        return Err(Error::refused(
            printable_path(&tree.root_path),
            format!(
                "{}; {} {pack} it nevertheless",
                listed(&refused),
                options.join(" and ")
            ),
        ));
    }
    if !warned.is_empty() {
        tree.warnings.push(listed(&warned));
    }
    Ok(())
}

impl Class {
    fn option(self) -> &'static str {
        match self {
            Class::Incomplete => "--allow-incomplete",
            Class::Secret => "--allow-secrets",
        }
    }
}

/// The findings in one line.
fn listed(findings: &[(Class, String)]) -> String {
    let texts = findings.iter().map(|(_, text)| text.as_str());
    let mut line = texts.take(LISTED).collect::<Vec<_>>().join(", ");
    if findings.len() > LISTED {
        line += &format!(", and {} more", findings.len() - LISTED);
    }
    line
}

/// Looks at one file.
fn look(tree: &Tree, file: &InputFile, findings: &mut Vec<(Class, String)>) -> Result<()> {
    let path = file.path.as_str();
    let name = file.path.file_name().to_ascii_lowercase();
    let mut found = |class, what: &str| findings.push((class, format!("\"{path}\" {what}")));
    if is_unfinished(&name) {
        found(Class::Incomplete, UNFINISHED_DOWNLOAD);
        return Ok(());
    }
    if names_a_secret(&name, path) {
        found(Class::Secret, "looks like a secret");
        return Ok(());
    }
    let size = file.identity.size;
    let is_key_file = KEY_FILES.iter().any(|end| name.ends_with(end));
    let wanted = match size {
        _ if is_key_file => size.min(KEY_BYTES),
        1..=SMALL_BYTES => size.min(HEAD_BYTES),
        _ => 0,
    };
    if wanted > 0 {
        let head = read(tree, file, wanted)?;
        if is_pointer(&head, size) {
            found(
                Class::Incomplete,
                "is a git-lfs pointer, not the file itself (\"git lfs pull\" fetches it)",
            );
        } else if holds_key(&head, is_key_file) {
            found(Class::Secret, "looks like a private key");
        } else if holds_token(&head, size, &name) {
            found(Class::Secret, "looks like a token");
        }
    }
    if name.ends_with(".index.json") {
        missing_shards(tree, file, findings)?;
    }
    Ok(())
}

/// The first bytes of a file.
fn read(tree: &Tree, file: &InputFile, length: u64) -> Result<Vec<u8>> {
    let input = tree.open(file)?;
    // At most `limits::MAX_SHARD_INDEX_BYTES`.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    calls::read_exact(&input, &mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => tree.changed(file, "shrank while it was packed"),
        _ => tree.failed(file, "read", error),
    })?;
    Ok(bytes)
}

/// True for the name of what a download left unfinished.
pub(super) fn is_unfinished(name: &str) -> bool {
    UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// True for a name, in lower case, under which only secrets are kept.
fn names_a_secret(name: &str, path: &str) -> bool {
    let env = name.strip_prefix(".env.");
    let below = |end: &&str| {
        let rest = path.strip_suffix(*end);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    SECRET_NAMES.contains(&name)
        || env.is_some_and(|rest| !ENV_SAMPLES.contains(&rest))
        || KEY_CONTAINERS.iter().any(|end| name.ends_with(end))
        || SECRET_PATHS.iter().any(below)
}

/// True for a pointer of git-lfs, which has less than 1024 bytes.
fn is_pointer(head: &[u8], size: u64) -> bool {
    size < HEAD_BYTES
        && POINTERS.iter().any(|p| head.starts_with(p.as_bytes()))
        && head.split(|&b| b == b'\n').any(|l| l.starts_with(b"oid "))
}

/// True when the text begins with a private key, or holds one anywhere. Source: RFC 7468, section
/// 2; OpenPGP's armour says "BLOCK" behind it.
fn holds_key(head: &[u8], anywhere: bool) -> bool {
    let lines = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    lines
        .take(if anywhere { usize::MAX } else { 1 })
        .any(|line| {
            line.starts_with(b"-----BEGIN ")
                && (line.ends_with(b"PRIVATE KEY-----")
                    || line.ends_with(b"PRIVATE KEY BLOCK-----"))
        })
}

/// True when the whole file is one word that is, or is called, a token.
fn holds_token(head: &[u8], size: u64, name: &str) -> bool {
    let word = match std::str::from_utf8(head) {
        Ok(text) if size <= HEAD_BYTES => text.trim(),
        _ => return false,
    };
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    let is_token = |prefix: &&str| {
        word.strip_prefix(*prefix).is_some_and(|rest| {
            let all = |sign: fn(u8) -> bool| rest.bytes().all(sign);
            rest.len() >= TOKEN_BYTES
                && match *prefix {
                    "hf_" | "ghp_" | "gho_" => all(|b| b.is_ascii_alphanumeric()),
                    _ => all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
                }
        })
    };
    let called = name.strip_suffix(".txt").unwrap_or(name);
    is_word && (TOKEN_NAMES.contains(&called) || TOKEN_PREFIXES.iter().any(is_token))
}

/// The shards that an index names and the tree does not have. A JSON document without a map of
/// weights is no index; what else may be wrong with one is its reader's affair.
fn missing_shards(
    tree: &Tree,
    index: &InputFile,
    findings: &mut Vec<(Class, String)>,
) -> Result<()> {
    let size = index.identity.size;
    if size > limits::MAX_SHARD_INDEX_BYTES {
        log::warn!(
            "{} has {size} bytes: it is not checked which shards it names",
            tree.shown(index).display()
        );
        return Ok(());
    }
    let Ok(document) = serde_json::from_slice::<ShardIndex>(&read(tree, index, size)?) else {
        return Ok(());
    };
    let path = index.path.as_str();
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    for shard in document.weight_map.0 {
        let name = shard.strip_prefix("./").unwrap_or(&shard);
        let wanted = match dir {
            "" => name.to_string(),
            dir => format!("{dir}/{name}"),
        };
        let files = &tree.files;
        if files
            .binary_search_by(|file| file.path.as_str().cmp(&wanted))
            .is_err()
        {
            findings.push((
                Class::Incomplete,
                format!("\"{wanted}\" is missing, which \"{path}\" names"),
            ));
        }
    }
    Ok(())
}

/// `model.safetensors.index.json`, `pytorch_model.bin.index.json`: which shard has which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: Shards,
}

/// The values of a map, each once.
struct Shards(BTreeSet<String>);

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shards, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Shards;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shards, A::Error> {
                let mut shards = BTreeSet::new();
                while let Some((IgnoredAny, shard)) = map.next_entry::<_, String>()? {
                    shards.insert(shard);
                }
                Ok(Shards(shards))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k17_names_of_secrets() {
        for path in [
            ".env",
            "a/.env.local",
            ".NETRC",
            "ID_RSA",
            "keys/store.pfx",
            "home/.aws/credentials",
            ".docker/config.json",
        ] {
            let name = path.rsplit('/').next().unwrap().to_ascii_lowercase();
            assert!(names_a_secret(&name, path), "{path}");
        }
        for path in [
            "config.json",
            ".env.example",
            "id_rsa.pub",
            "x.aws/credentials",
            "env",
            "credentials",
            "tokenizer.json",
        ] {
            let name = path.rsplit('/').next().unwrap();
            assert!(!names_a_secret(name, path), "{path}");
        }
    }

    #[test]
    fn k17_words_that_are_tokens() {
        let token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";
        let holds = |text: &str, name: &str| holds_token(text.as_bytes(), text.len() as u64, name);
        assert!(holds(token, "notes"));
        assert!(holds(&format!("{token}\n"), "a.txt"));
        assert!(holds("hf_short", "token"));
        assert!(holds("0123abc", "api_key.txt"));
        for (text, name) in [
            ("hf_short", "notes"),
            ("hf_internal_testing_of_tiny_models", "name"),
            ("two words", "token"),
            ("", "token"),
            ("vocabulary", "tokens.txt"),
        ] {
            assert!(!holds(text, name), "{text}");
        }
        assert!(
            !holds_token(token.as_bytes(), 5000, "notes"),
            "only its beginning"
        );
    }
}
