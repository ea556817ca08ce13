//! The cache of the Hugging Face client: a repository is a directory `models--ORG--NAME`, with the
//! files in `blobs/` and, in `snapshots/REVISION/`, links to them.
//!
//! A snapshot's links lead to the files in `blobs`, and these alone are a model's. That directory is
//! found from the model's, which is held, upwards: each one above is opened by the one before, and
//! has its name only if what has that name in the directory above is this very one. So whatever is
//! moved or exchanged meanwhile, what is held in the end are the blobs of a repository that the
//! model is a snapshot of.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files::{beneath, calls, identity};
use crate::printable::printable_path;

/// How the directories of repositories are called. Source: huggingface_hub, "Understand caching".
const PREFIXES: [&str; 3] = ["models--", "datasets--", "spaces--"];
const SNAPSHOTS: &str = "snapshots";
const BLOBS: &str = "blobs";
/// How many directories above a model are looked at: more than a path has room for.
const MAX_LEVELS: usize = 2_048;
/// Larger files below `refs/` hold no revision.
const REF_BYTES: usize = 128;
/// How many snapshots an error lists.
const LISTED: usize = 10;

/// The blobs of the repository that the open directory `model` is a snapshot of, or is in one;
/// `None` for any other directory, and where that cannot be told.
pub(super) fn blobs(model: &OwnedFd) -> Option<OwnedFd> {
    // A snapshot is in `snapshots`, never that itself.
    let mut dir = above(model)?;
    for _ in 0..MAX_LEVELS {
        let repository = above(&dir)?;
        if has(&repository, OsStr::new(SNAPSHOTS), &dir) && is_called_repository(&repository) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            return calls::openat(&repository, BLOBS, flags, Mode::empty()).ok();
        }
        dir = repository;
    }
    None
}

/// The directory above an open one; `None` at the top of the file system.
fn above(dir: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let above = calls::openat(dir, "..", flags, Mode::empty()).ok()?;
    let (node, own) = (calls::fstat(&above).ok()?, calls::fstat(dir).ok()?);
    (identity::node(&node) != identity::node(&own)).then_some(above)
}

/// True when `name` in `above` is the directory `dir` itself, and no link to it.
fn has(above: &OwnedFd, name: &OsStr, dir: &OwnedFd) -> bool {
    let stats = (calls::statat(above, name), calls::fstat(dir));
    matches!(stats, (Ok(named), Ok(dir)) if identity::node(&named) == identity::node(&dir))
}

fn is_called_repository(dir: &OwnedFd) -> bool {
    // Only the directory above knows; the kernel says which name to look for.
    let Ok(path) = calls::path_of(dir) else {
        return false;
    };
    let Some(name) = path.file_name() else {
        return false;
    };
    let begins = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
    PREFIXES.iter().any(begins) && above(dir).is_some_and(|above| has(&above, name, dir))
}

/// Refuses the directory of a repository, which is a store and no model.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names the snapshots.
pub(super) fn check(model_dir: &Path, root: &OwnedFd) -> Result<()> {
    let failed = |errno: Errno| Error::io("read", model_dir)(errno.into());
    for name in [BLOBS, "refs", SNAPSHOTS] {
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
