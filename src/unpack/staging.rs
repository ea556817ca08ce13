//! Where the tree is written, and the one step that publishes it.
//!
//! The tree is made in a private directory beside the output, `.modeloci-XXXX.tmp/tree`, and takes
//! the output's name in one rename. `--force` exchanges it with the tree that it replaces: that is
//! held open from the start, so that what comes back in exchange is known by its identity and not
//! by a name that another user may have given to something else meanwhile; what is not ours goes
//! back. Only below that handle is anything removed.
//!
//! An output that is an empty directory, perhaps the mount point of a volume, stays that directory:
//! the private one is made in it, and the tree's entries are moved up one by one at the end.
//!
//! Directories above the output are made where they are missing, and removed again when it fails.

use std::ffi::{CStr, CString};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files::beneath::DIRECTORY;
use crate::files::calls;
use crate::files::identity::node;
use crate::files::parents::Parents;
use crate::files::remove;
use crate::files::temporary::temporary_name;
use crate::printable::printable_path;

/// The tree's name in the private directory; afterwards that of the tree that it replaced.
const TREE: &CStr = c"tree";
/// What a new file system has in its root.
const LOST_FOUND: &CStr = c"lost+found";

/// A tree that becomes the output, or is removed when dropped.
pub(super) struct Staging {
    /// The directory in which names are changed: the output's parent, or an output that is empty.
    base: OwnedFd,
    /// The private directory's name in the base.
    temporary: CString,
    private: Held,
    tree: Option<Held>,
    place: Place,
    output: PathBuf,
    /// The base holds a part of the tree: the private directory stays, to say so.
    incomplete: bool,
    /// What was made for the output to have a place; the last to be dropped.
    parents: Parents,
}

/// How the tree becomes the output.
enum Place {
    /// By taking this name in the base, from `old` if that is there.
    Name { name: CString, old: Option<Held> },
    /// By giving the base all that is in it.
    Base,
}

/// An open directory, known by its identity whatever name it has.
struct Held {
    dir: OwnedFd,
    node: (u64, u64),
}

impl Held {
    /// Makes a directory and opens it. Nothing when another has its name by then: what is not empty is
    /// not the one that was made, and what is in it is somebody's.
    fn make(parent: impl AsFd, name: &CStr, mode: u32) -> rustix::io::Result<Option<Held>> {
        calls::mkdir(&parent, name, Mode::from_raw_mode(mode))?;
        let held = Held::open(&parent, name);
        held.and_then(|held| Ok(calls::names(&held.dir)?.is_empty().then_some(held)))
            .inspect_err(|_| {
                // Nothing but an empty directory can be lost by this.
                let _ = calls::rmdir(&parent, name);
            })
    }

    fn open(parent: impl AsFd, name: &CStr) -> rustix::io::Result<Held> {
        let dir = calls::openat(parent, name, DIRECTORY, Mode::empty())?;
        let node = node(&calls::fstat(&dir)?);
        Ok(Held { dir, node })
    }

    /// True when `name` in `parent` is this directory.
    fn is_at(&self, parent: impl AsFd, name: &CStr) -> rustix::io::Result<bool> {
        match calls::statat(parent, name) {
            Ok(stat) => Ok(node(&stat) == self.node),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Staging {
    /// Makes the private directory and the tree in it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the output exists, is not empty and
    /// `force` is not set, or cannot be replaced;
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub(super) fn create(output: &Path, force: bool) -> Result<Staging> {
        let Some(name) = output.file_name() else {
            return Err(refused(
                output,
                "has no name that a new directory could take",
            ));
        };
        let name = CString::new(name.as_bytes())
            .map_err(|_| Error::usage("the output's name contains a NUL byte"))?;
        let (parent, parents) = Parents::of(output)?;
        let (base, place) = match existing(&parent, &name, output, force)? {
            Some(empty) if is_empty(&empty.dir, None).map_err(failed("list", output))? => {
                (empty.dir, Place::Base)
            }
            Some(_) if !force => return Err(exists(output)),
            old => (parent, Place::Name { name, old }),
        };
        let failed = failed("create a temporary directory for", output);
        let (temporary, private) = match private(&base) {
            Ok(made) => made,
            Err(errno) => return Err(failed(errno)),
        };
        let mut staging = Staging {
            base,
            temporary,
            private,
            tree: None,
            place,
            output: output.to_path_buf(),
            incomplete: false,
            parents,
        };
        let dir = &staging.private.dir;
        match Held::make(dir, TREE, 0o777).map_err(failed)? {
            Some(tree) => staging.tree = Some(tree),
            None => return Err(staging.meddled()),
        }
        Ok(staging)
    }

    /// The handle of the tree.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.tree
            .as_ref()
            .map_or(&self.private, |tree| tree)
            .dir
            .as_fd()
    }

    /// Makes the tree the output, and removes the one that was there before.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the output, or the temporary
    /// directory, was changed by something else meanwhile. Nothing is published then.
    pub(super) fn publish(mut self) -> Result<()> {
        self.parents.sync()?;
        let Some(tree) = self.tree.take() else {
            return Ok(());
        };
        let litter = match &self.place {
            Place::Base => self.fill(&tree).map(|()| Some(&tree)),
            Place::Name { name, old } => self.take_name(&tree, name, old.as_ref()),
        };
        match litter {
            // The new tree is complete and in place: whether this can be removed changes nothing.
            Ok(litter) => {
                self.parents.keep();
                if let Some(litter) = litter {
                    self.discard(litter);
                }
                Ok(())
            }
            Err(error) => {
                self.tree = Some(tree);
                Err(error)
            }
        }
    }

    /// Gives the tree its name. Returns what it replaced, which then is in the private directory.
    fn take_name<'a>(
        &self,
        tree: &Held,
        name: &CStr,
        old: Option<&'a Held>,
    ) -> Result<Option<&'a Held>> {
        let create = || failed("create", &self.output);
        if !tree.is_at(&self.private.dir, TREE).map_err(create())? {
            return Err(self.meddled());
        }
        let replaced = match old {
            Some(old) => self.exchange(name, old)?.then_some(old),
            None => None,
        };
        if replaced.is_none() {
            self.rename(name)?;
        }
        if let Err(errno) = calls::sync_dir(&self.base) {
            self.take_back(tree, name, replaced);
            return Err(failed("sync the directory of", &self.output)(errno));
        }
        Ok(replaced)
    }

    fn rename(&self, name: &CStr) -> Result<()> {
        move_free(&self.private.dir, TREE, &self.base, name).map_err(|e| match e {
            Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR => exists(&self.output),
            e => failed("create", &self.output)(e),
        })
    }

    /// Exchanges the tree with `old`; false when nothing has its name any more.
    fn exchange(&self, name: &CStr, old: &Held) -> Result<bool> {
        let replace = || failed("replace", &self.output);
        let changed = || refused(&self.output, "was replaced by something else meanwhile");
        match calls::statat(&self.base, name) {
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(replace()(errno)),
            Ok(stat) if node(&stat) != old.node => return Err(changed()),
            Ok(_) => {}
        }
        self.swap(name).map_err(|errno| match errno {
            errno if calls::is_unsupported(errno) => refused(
                &self.output,
                "cannot be replaced at once on this file system; remove it first",
            ),
            errno => replace()(errno),
        })?;
        let came_back = old.is_at(&self.private.dir, TREE);
        if came_back == Ok(true) {
            return Ok(true);
        }
        // Someone was faster. What they put there goes back to where it was.
        if let Err(errno) = self.swap(name) {
            let left = self.temporary.to_string_lossy();
            log::warn!(
                "what was at {} is in {left} now: {errno}",
                printable_path(&self.output)
            );
        }
        Err(came_back.map_or_else(replace(), |_| changed()))
    }

    fn swap(&self, name: &CStr) -> rustix::io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        calls::rename_between(&self.private.dir, TREE, &self.base, name, flags)
    }

    /// Undoes [`take_name`](Staging::take_name).
    fn take_back(&self, tree: &Held, name: &CStr, replaced: Option<&Held>) {
        let undone = match (tree.is_at(&self.base, name), replaced) {
            (Ok(true), Some(_)) => self.swap(name),
            (Ok(true), None) => move_free(&self.base, name, &self.private.dir, TREE),
            // Someone else's by now.
            (Ok(false), _) => Ok(()),
            (Err(errno), _) => Err(errno),
        };
        if let Err(errno) = undone {
            let output = printable_path(&self.output);
            log::warn!("cannot take back {output}, which may not be durable: {errno}");
        }
    }

    /// Moves all that is in the tree to the base, which must still be empty.
    fn fill(&mut self, tree: &Held) -> Result<()> {
        let create = || failed("create files in", &self.output);
        if !is_empty(&self.base, Some(&self.temporary)).map_err(create())? {
            return Err(refused(&self.output, "is no longer empty"));
        }
        let mut moved = Vec::new();
        let result = calls::names(&tree.dir).map_err(create()).and_then(|names| {
            for name in names {
                let known = node(&calls::statat(&tree.dir, &*name).map_err(create())?);
                move_free(&tree.dir, &name, &self.base, &name).map_err(|e| match e {
                    Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR => {
                        refused(&self.output, "is no longer empty")
                    }
                    e => create()(e),
                })?;
                moved.push((name, known));
            }
            calls::sync_dir(&self.base).map_err(failed("sync", &self.output))
        });
        if result.is_err() {
            for (name, known) in moved.into_iter().rev() {
                let back = match calls::statat(&self.base, &*name) {
                    Ok(stat) if node(&stat) == known => {
                        move_free(&self.base, &name, &tree.dir, &name)
                    }
                    // Someone else's by now.
                    Ok(_) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno),
                };
                if let Err(errno) = back {
                    let output = printable_path(&self.output);
                    log::warn!("{output} is incomplete and cannot be emptied: {errno}");
                    self.incomplete = true;
                    break;
                }
            }
        }
        result
    }

    /// Removes a directory that is, or was, in the private one, with all that is in it. Whatever
    /// cannot be removed, or is not it, stays.
    fn discard(&self, held: &Held) {
        let temporary = self.temporary.to_string_lossy();
        if let Err(left) = remove::contents(held.dir.as_fd()) {
            let output = printable_path(&self.output);
            log::warn!("{output}: cannot remove all of {temporary}/tree: {left}");
        } else if let Err(error) = remove::directory(self.private.dir.as_fd(), TREE, held.node) {
            log::warn!("cannot remove {temporary}/tree: {error}");
        }
    }

    fn meddled(&self) -> Error {
        refused(
            &self.output,
            "the temporary directory beside it was renamed or replaced meanwhile",
        )
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.take() {
            self.discard(&tree);
        }
        if self.incomplete {
            return;
        }
        let temporary = self.temporary.to_string_lossy();
        match remove::directory(self.base.as_fd(), &self.temporary, self.private.node) {
            Ok(true) => {}
            Ok(false) => log::warn!("{temporary} was renamed or replaced; what is there stays"),
            // What is in it was named.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) => log::warn!("cannot remove the temporary directory {temporary}: {error}"),
        }
    }
}

/// Makes and opens a directory that only this user can change.
fn private(base: &OwnedFd) -> rustix::io::Result<(CString, Held)> {
    for _ in 0..128 {
        let name = temporary_name();
        match Held::make(base, &name, 0o700) {
            Ok(Some(held)) => return Ok((name, held)),
            Ok(None) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// The directory that has the output's name.
fn existing(parent: &OwnedFd, name: &CStr, output: &Path, force: bool) -> Result<Option<Held>> {
    match Held::open(parent, name) {
        Ok(held) => Ok(Some(held)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(refused(output, "exists and is no directory")),
        Err(Errno::ACCESS) if !force => Err(exists(output)),
        Err(errno) => Err(failed("open", output)(errno)),
    }
}

/// True when there is nothing but `ours` and what a file system begins with.
fn is_empty(dir: &OwnedFd, ours: Option<&CString>) -> rustix::io::Result<bool> {
    let names = calls::names(dir)?;
    let counts = |name: &CString| Some(name) != ours && name.as_c_str() != LOST_FOUND;
    Ok(!names.iter().any(counts))
}

/// Renames to a name that nothing has.
fn move_free(from: &OwnedFd, old: &CStr, to: &OwnedFd, new: &CStr) -> rustix::io::Result<()> {
    match calls::rename_between(from, old, to, new, RenameFlags::NOREPLACE) {
        // A file system that does not know the flag (NFS).
        Err(errno) if calls::is_unsupported(errno) => match calls::statat(to, new) {
            Err(Errno::NOENT) => calls::rename_between(from, old, to, new, RenameFlags::empty()),
            Ok(_) => Err(Errno::EXIST),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}

fn exists(output: &Path) -> Error {
    refused(output, "exists already")
}

fn refused(output: &Path, problem: &str) -> Error {
    Error::refused(printable_path(output), problem)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let error = Error::io(action, path);
    move |errno| error(errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::files::meanwhile::meanwhile;

    /// Between the making of a directory and its opening another may take its name; what is in that
    /// one was written over, and removed in the end.
    #[test]
    fn u4_a_directory_that_was_made_is_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("victim")).unwrap();
        std::fs::write(at("victim/secret"), "secret").unwrap();
        let base: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let victim = Held::open(&base, c"victim").unwrap().node;
        let exchange = || {
            let flags = RenameFlags::EXCHANGE;
            let _ = calls::rename_between(&base, c"made", &base, c"victim", flags);
        };
        meanwhile([exchange], || {
            for _ in 0..5_000 {
                match Held::make(&base, c"made", 0o700) {
                    Ok(Some(held)) => assert_ne!(held.node, victim),
                    Ok(None) | Err(Errno::EXIST) => {}
                    Err(errno) => panic!("{errno}"),
                }
                for name in [c"made", c"victim"] {
                    let _ = calls::rmdir(&base, name);
                }
                let flags = RenameFlags::NOREPLACE;
                let _ = calls::rename_between(&base, c"made", &base, c"victim", flags);
            }
        });
        let names = calls::names(&base).unwrap();
        let secrets = names
            .iter()
            .map(|name| at(name.to_str().unwrap()).join("secret"));
        assert_eq!(secrets.filter(|path| path.exists()).count(), 1);
    }
}
