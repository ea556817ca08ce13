//! The cache of the Hugging Face client: a repository is a directory `models--ORG--NAME`, with the
//! files in `blobs/` and, in `snapshots/REVISION/`, links to them.
//!
//! A snapshot's links are followed as far as the repository's own directory, which is held like the
//! model's: its path only tells where to look, and what is found counts when the model's directory
//! lies in it, by its identity.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files::identity::node;
use crate::files::{beneath, calls};
use crate::printable::printable_path;

/// How the directories of repositories are called. Source: huggingface_hub, "Understand caching".
const PREFIXES: [&str; 3] = ["models--", "datasets--", "spaces--"];
const SNAPSHOTS: &str = "snapshots";
/// Larger files below `refs/` hold no revision.
const REF_BYTES: usize = 128;
/// How many snapshots an error lists.
const LISTED: usize = 10;

/// The repository that a snapshot, or a directory in one, belongs to; and where in it that is.
pub(super) fn repository(model_dir: &Path, root: &OwnedFd) -> Option<(OwnedFd, PathBuf)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a guess, which is compared with what is held"
    )]
    let path = model_dir.canonicalize().ok()?;
    let mut dir = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        dir.push(component);
        let rest = components.as_path();
        if !is_called_repository(component) || !is_in_snapshot(rest) {
            continue;
        }
        let repository = calls::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
        return holds(&repository, rest, root).then(|| (repository, rest.to_path_buf()));
    }
    None
}

fn is_called_repository(component: Component<'_>) -> bool {
    let name = component.as_os_str().as_bytes();
    PREFIXES.iter().any(|p| name.starts_with(p.as_bytes()))
}

/// True for `snapshots/REVISION` and what lies below.
fn is_in_snapshot(path: &Path) -> bool {
    path.starts_with(SNAPSHOTS) && path.components().count() >= 2
}

/// True when the directory `dir` is the one at `path` below `above`.
pub(super) fn holds(above: &OwnedFd, path: &Path, dir: &OwnedFd) -> bool {
    let there = beneath::open(above.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY);
    let stats = (there.and_then(calls::fstat), calls::fstat(dir));
    matches!(stats, (Ok(there), Ok(dir)) if node(&there) == node(&dir))
}

/// Refuses the directory of a repository, which is a store and no model.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names the snapshots.
pub(super) fn check(model_dir: &Path, root: &OwnedFd) -> Result<()> {
    let failed = |errno: Errno| Error::io("read", model_dir)(errno.into());
    for name in ["blobs", "refs", SNAPSHOTS] {
        match calls::statat(root, name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            // What was downloaded by its revision has no refs.
            Err(Errno::NOENT) if name == "refs" => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
    let refs = refs(root);
    let snapshots = beneath::open_dir(root.as_fd(), SNAPSHOTS).map_err(failed)?;
    let mut names = calls::names(&snapshots).map_err(failed)?;
    names.sort();
    let shown = names.iter().take(LISTED).map(|name| {
        let path = model_dir.join(SNAPSHOTS);
        let path = printable_path(&path.join(OsStr::from_bytes(name.to_bytes())));
        match refs.get(name.to_bytes()) {
            Some(reference) => format!("{path} ({reference})"),
            None => path,
        }
    });
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        list += &format!(", or one of {} more", names.len() - LISTED);
    }
    if names.is_empty() {
        list = "but there is none".into();
    }
    Err(Error::usage(format!(
        "{} is the cache of a repository, not a model; pack a snapshot of it: {list}",
        printable_path(model_dir)
    )))
}

/// Which revision has a name: branches and tags, but not those of pull requests.
fn refs(root: &OwnedFd) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let Ok(dir) = beneath::open_dir(root.as_fd(), "refs") else {
        return found;
    };
    for name in calls::names(&dir).unwrap_or_default() {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut text = [0; REF_BYTES];
        // Names only help: what cannot be read is listed without one.
        let Ok(file) = calls::openat(&dir, name.as_c_str(), flags, Mode::empty()) else {
            continue;
        };
        let Ok(length) = calls::read(&File::from(file), &mut text) else {
            continue;
        };
        let revision = text.get(..length).unwrap_or_default().trim_ascii();
        found.insert(revision.to_vec(), name.to_string_lossy().into_owned());
    }
    found
}
