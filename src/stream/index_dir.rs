//! The directory in which indexes of layers are kept: `seek-tables/` in the user's cache directory,
//! or in the one that was named.
//!
//! It is opened by its handle, trusted component by component ([`trusted`]), and everything in it
//! is reached below that handle. Nothing is touched in it but regular files of this user, with
//! names that only this module gives, and nothing at all where [`MARKER`] is missing. The directory
//! around it is never listed.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::files::beneath::DIRECTORY;
use crate::files::parents::Parents;
use crate::files::{calls, trusted};
use crate::limits;

/// The directory of ours in the one that was named.
const SUBDIRECTORY: &CStr = c"seek-tables";
/// The file that says whose it is; also tools that make backups know the name.
const MARKER: &CStr = c"CACHEDIR.TAG";
const MARKER_TEXT: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
# Seek tables of modeloci: what is in this directory can be removed at any time.\n";
/// Free bytes without which nothing is put aside there.
const SPOOL_SPACE: u64 = 256 << 20;
/// How long a temporary file of a killed process stays, in seconds.
const ABANDONED: i64 = 24 * 3600;

/// Why an index is not used or kept.
pub(super) type Problem = String;

/// An open directory of indexes.
pub(super) struct IndexDir {
    dir: OwnedFd,
}

/// The name of a layer's index.
pub(super) fn index_name(digest: &Digest) -> CString {
    let name = format!("{}-{}.idx", digest.algorithm().name(), digest.hex());
    CString::new(name).unwrap_or_default()
}

/// A name that this module gives.
#[derive(Debug, PartialEq, Eq)]
enum Ours {
    Index,
    /// Of a file that is not finished.
    Temporary,
}

impl Ours {
    fn of(name: &CStr) -> Option<Ours> {
        let text = name.to_str().ok()?;
        if let Some(random) = text.strip_prefix(".tmp-") {
            let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            return (random.len() == 16 && random.bytes().all(is_hex)).then_some(Ours::Temporary);
        }
        let (algorithm, hex) = text.strip_suffix(".idx")?.split_once('-')?;
        let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
        (*index_name(&digest) == *name).then_some(Ours::Index)
    }
}

/// The directories that exist for indexes in `path`, for a process that will be able to open no
/// other: the one that was named, and the one of ours in it. What is wrong with one that is not
/// there is said by whoever uses it.
pub fn existing(path: &Path) -> [Option<OwnedFd>; 2] {
    let named = trusted::open(path, false).ok().flatten();
    let ours = IndexDir::open(path, false).ok().flatten();
    [named, ours.map(|ours| ours.dir)]
}

/// Directories that were made for a process that can make none. They stay, unless that is undone.
#[derive(Debug)]
pub struct Made {
    dir: OwnedFd,
    /// Of which it is the last.
    parents: Parents,
}

/// Makes the directory for indexes in `path`; `None` when all is there, or it cannot be made.
pub fn make(path: &Path) -> Option<Made> {
    if !matches!(IndexDir::open(path, false), Ok(None)) {
        return None;
    }
    let mut parents = Parents::default();
    let dir = IndexDir::open_or_make(path, Some(&mut parents)).ok()??.dir;
    Some(Made { dir, parents })
}

impl Made {
    /// Removes those again, each by its identity, in which nobody has put anything.
    pub fn undo(mut self) {
        let is_new = !self.parents.is_empty();
        if is_new && calls::names(&self.dir).is_ok_and(|names| names.len() <= 1) {
            let _ = calls::unlink(&self.dir, MARKER);
            drop(std::mem::take(&mut self.parents));
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.parents.keep();
    }
}

impl IndexDir {
    /// Opens the directory of ours in `path`; `None` when there is none. With `create`, all that is
    /// missing is made.
    pub(super) fn open(path: &Path, create: bool) -> Result<Option<IndexDir>, Problem> {
        let mut made = Parents::default();
        let opened = IndexDir::open_or_make(path, create.then_some(&mut made));
        made.keep();
        opened
    }

    fn open_or_make(
        path: &Path,
        mut made: Option<&mut Parents>,
    ) -> Result<Option<IndexDir>, Problem> {
        let Some(named) = trusted::open_or_make(path, made.as_deref_mut()).map_err(text)? else {
            return Ok(None);
        };
        let shown = |problem: &dyn std::fmt::Display| {
            let path = path.join("seek-tables");
            format!("{} {problem}", crate::printable::printable_path(&path))
        };
        let create = made.is_some();
        let opened = match made {
            Some(made) => {
                let name = OsStr::from_bytes(SUBDIRECTORY.to_bytes());
                made.make(&named, name, DIRECTORY, &path.join(name))
            }
            None => calls::openat(&named, SUBDIRECTORY, DIRECTORY, Mode::empty()),
        };
        let dir = match opened {
            Ok(dir) => dir,
            Err(Errno::NOENT) if !create => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(shown(&"is no directory")),
            Err(errno) => return Err(shown(&format!("cannot be opened: {errno}"))),
        };
        let stat = calls::fstat(&dir).map_err(text)?;
        trusted::check_own(&stat).map_err(|why| shown(&why))?;
        let dir = IndexDir { dir };
        match dir.is_marked().map_err(text)? {
            Some(true) => return Ok(Some(dir)),
            Some(false) => return Err(shown(&"has a CACHEDIR.TAG of something else")),
            None if !dir.holds_only_ours().map_err(text)? => {
                return Err(shown(&"has files of something else"));
            }
            // Another process is making it just now, or was killed then.
            None if !create => return Ok(None),
            None => {}
        }
        dir.mark()
            .map_err(|e| shown(&format!("cannot be marked: {e}")))?;
        Ok(Some(dir))
    }

    /// A temporary file without a name in the directory that was named.
    pub(super) fn spool(path: &Path) -> Result<File, Problem> {
        let dir = IndexDir::open(path, true)?.ok_or("there is none")?.dir;
        // A full one would make the layer unreadable.
        let space = rustix::fs::fstatvfs(&dir).map_err(text)?;
        if space.f_bavail.saturating_mul(space.f_frsize) < SPOOL_SPACE {
            return Err("there is too little space".into());
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE;
        let mode = Mode::from_raw_mode(0o600);
        match calls::openat(&dir, c".", flags, mode) {
            Ok(file) => Ok(File::from(file)),
            // A file system without such files.
            Err(Errno::NOTSUP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let file = Unfinished::create(&dir).map_err(text)?;
                file.file.try_clone().map_err(text)
            }
            Err(errno) => Err(text(errno)),
        }
    }

    /// Opens a layer's index, which is a regular file of this user, with its size.
    pub(super) fn load(&self, name: &CStr) -> Result<Option<(File, u64)>, Problem> {
        let Some((file, stat)) = self.open_file(name).map_err(text)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("it is no regular file".into());
        }
        trusted::check_own(&stat).map_err(|why| format!("it {why}"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > limits::MAX_INDEX_BYTES {
            return Err(format!("it has {size} bytes, more than allowed"));
        }
        Ok(Some((file, size)))
    }

    /// Begins a file that is to be an index.
    pub(super) fn create(&self) -> rustix::io::Result<Unfinished<'_>> {
        Unfinished::create(&self.dir)
    }

    fn open_file(&self, name: &CStr) -> rustix::io::Result<Option<(File, Stat)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match calls::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = calls::fstat(&fd)?;
                Ok(Some((File::from(fd), stat)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the marker is ours; `None` when there is none.
    fn is_marked(&self) -> io::Result<Option<bool>> {
        let Some((file, stat)) = self.open_file(MARKER)? else {
            return Ok(None);
        };
        let ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && trusted::check_own(&stat).is_ok()
            && u64::try_from(stat.st_size) == Ok(MARKER_TEXT.len() as u64);
        if !ours {
            return Ok(Some(false));
        }
        let mut found = [0; MARKER_TEXT.len()];
        calls::read_exact(&file, &mut found)?;
        Ok(Some(found == MARKER_TEXT))
    }

    fn mark(&self) -> io::Result<()> {
        let file = self.create()?;
        calls::write_all_at(&file.file, MARKER_TEXT, 0)?;
        file.give_name(MARKER)?;
        Ok(())
    }

    /// True for a directory that a killed process, or another one just now, is making.
    fn holds_only_ours(&self) -> rustix::io::Result<bool> {
        let is_ours = |name: &CString| name.as_c_str() == MARKER || Ours::of(name).is_some();
        Ok(calls::names(&self.dir)?.iter().all(is_ours))
    }

    /// Removes the oldest indexes, but for `keep`, when there is too much of them, and what killed
    /// processes left. Whatever fails here costs space, no more.
    pub(super) fn prune(&self, keep: &CStr) {
        self.prune_to(keep, limits::MAX_INDEX_DIR_BYTES);
    }

    fn prune_to(&self, keep: &CStr, limit: u64) {
        let us = rustix::process::geteuid().as_raw();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        let mut indexes = Vec::new();
        for name in calls::names(&self.dir).unwrap_or_default() {
            let (Some(kind), Ok(stat)) = (Ours::of(&name), calls::statat(&self.dir, &*name)) else {
                continue;
            };
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !is_file || stat.st_uid != us {
                continue;
            }
            match kind {
                Ours::Index => {
                    let modified = (stat.st_mtime, stat.st_mtime_nsec);
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    indexes.push((modified, size, name));
                }
                Ours::Temporary if now.saturating_sub(stat.st_mtime) > ABANDONED => {
                    let _ = calls::unlink(&self.dir, &*name);
                }
                Ours::Temporary => {}
            }
        }
        indexes.sort();
        let sizes = indexes.iter().map(|(_, size, _)| *size);
        let mut total = sizes.fold(0, u64::saturating_add);
        for (_, size, name) in indexes {
            if total <= limit {
                return;
            }
            if *name != *keep && calls::unlink(&self.dir, &*name).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }
}

/// A file under a temporary name, which is removed unless it is given another.
pub(super) struct Unfinished<'a> {
    dir: &'a OwnedFd,
    name: Option<CString>,
    pub(super) file: File,
}

impl Unfinished<'_> {
    fn create(dir: &OwnedFd) -> rustix::io::Result<Unfinished<'_>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        for _ in 0..128 {
            let name = temporary_name();
            match calls::openat(dir, &*name, flags, Mode::from_raw_mode(0o600)) {
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
                Ok(file) => {
                    return Ok(Unfinished {
                        dir,
                        name: Some(name),
                        file: file.into(),
                    });
                }
            }
        }
        Err(Errno::EXIST)
    }

    /// Gives the file its name, replacing what has it.
    pub(super) fn give_name(mut self, name: &CStr) -> rustix::io::Result<()> {
        if let Some(temporary) = &self.name {
            let dir = self.dir;
            calls::rename_between(dir, &**temporary, dir, name, RenameFlags::empty())?;
            self.name = None;
        }
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Once more, when it failed: what is left is found by a later run, after a day.
            let _ = calls::unlink(self.dir, &**name).or_else(|_| calls::unlink(self.dir, &**name));
        }
    }
}

fn temporary_name() -> CString {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    CString::new(format!(".tmp-{random:016x}")).unwrap_or_default()
}

fn text(error: impl std::fmt::Display) -> Problem {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn only_names_that_are_given_here_are_ours() {
        let of = |name: &str| Ours::of(&CString::new(name).unwrap());
        let hex = "0123456789abcdef".repeat(4);
        for name in [
            format!("sha256-{hex}.idx"),
            format!("sha512-{hex}{hex}.idx"),
        ] {
            assert_eq!(of(&name), Some(Ours::Index), "{name}");
        }
        assert_eq!(
            of(temporary_name().to_str().unwrap()),
            Some(Ours::Temporary)
        );
        for name in [
            "other-tool.idx".to_string(),
            format!("sha256-{hex}"),
            format!("sha256-{hex}.idx.bak"),
            format!("sha256-{}.idx", hex.to_uppercase()),
            format!("sha256-{}.idx", &hex[1..]),
            format!("sha256:{hex}.idx"),
            format!("md5-{hex}.idx"),
            format!("x-sha256-{hex}.idx"),
            ".tmp-precious".into(),
            ".tmp-0123456789abcde".into(),
            ".tmp-0123456789ABCDEF".into(),
            "CACHEDIR.TAG".into(),
            String::new(),
        ] {
            assert_eq!(of(&name), None, "{name}");
        }
    }

    #[test]
    fn r17_the_oldest_go_first_and_strangers_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = IndexDir::open(scratch.path(), true).unwrap().unwrap();
        let path = |name: &str| scratch.path().join("seek-tables").join(name);
        let name = |c: char| format!("sha256-{}.idx", c.to_string().repeat(64));
        let put = |name: &str, age: u64| {
            let file = fs::File::create(path(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(age))
                .unwrap();
        };
        let ours = ['a', 'b', 'c'].map(name);
        let strangers = ["other.idx", ".tmp-precious", "sha256-aa.idx", "d.txt"];
        for (age, name) in ours.iter().enumerate() {
            put(name, 1 + age as u64);
        }
        for name in strangers {
            put(name, 0);
        }
        let abandoned = ".tmp-0123456789abcdef";
        put(abandoned, 0);
        let link = name('d');
        std::os::unix::fs::symlink(path("d.txt"), path(&link)).unwrap();
        dir.prune_to(&CString::new(ours[0].as_str()).unwrap(), 200);
        assert!(path(&ours[0]).exists(), "it was just written");
        assert!(!path(&ours[1]).exists() && path(&ours[2]).exists());
        assert!(!path(abandoned).exists());
        for name in strangers.iter().chain([&link.as_str()]) {
            assert!(path(name).symlink_metadata().is_ok(), "{name}");
        }
        assert_eq!(fs::metadata(path("d.txt")).unwrap().len(), 100);
    }

    #[test]
    fn e18_a_directory_that_was_made_for_nothing_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let named = scratch.path().join("cache/modeloci");
        assert!(existing(&named).iter().all(Option::is_none));
        let made = make(&named).unwrap();
        assert!(existing(&named).iter().all(Option::is_some));
        assert!(make(&named).is_none(), "all is there");
        made.undo();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        // Nobody's file goes, nor a directory that was there before.
        fs::create_dir(scratch.path().join("cache")).unwrap();
        make(&named).unwrap().undo();
        assert!(scratch.path().join("cache").exists());
        let made = make(&named).unwrap();
        let index = format!("sha256-{}.idx", "a".repeat(64));
        let index = named.join("seek-tables").join(index);
        fs::write(&index, "").unwrap();
        made.undo();
        assert!(index.exists() && IndexDir::open(&named, false).unwrap().is_some());
    }

    /// What has the name of a directory that was made, and is another one, stays.
    #[test]
    fn r17_what_is_undone_is_known_by_identity() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let made = make(&at("cache/modeloci")).unwrap();
        fs::rename(at("cache"), at("moved")).unwrap();
        fs::create_dir_all(at("cache/modeloci/seek-tables")).unwrap();
        made.undo();
        assert!(at("cache/modeloci/seek-tables").exists());
        assert!(at("moved").exists() && !at("moved/modeloci").exists());
        // Without that word all stays.
        drop(make(&at("other")).unwrap());
        assert!(at("other/seek-tables/CACHEDIR.TAG").exists());
    }

    #[test]
    fn r17_a_directory_without_the_marker_is_not_ours() {
        let problem = |scratch: &Path| IndexDir::open(scratch, true).err().unwrap();
        // Somebody else's, by the name that we would use.
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("seek-tables");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("precious"), "").unwrap();
        assert!(problem(scratch.path()).ends_with("has files of something else"));
        fs::write(dir.join("CACHEDIR.TAG"), "Signature: theirs").unwrap();
        assert!(problem(scratch.path()).ends_with("of something else"));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        // One that a killed process began.
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("seek-tables");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(".tmp-0123456789abcdef"), "").unwrap();
        assert!(IndexDir::open(scratch.path(), true).unwrap().is_some());
        assert_eq!(fs::read(dir.join("CACHEDIR.TAG")).unwrap(), MARKER_TEXT);
        // A link, a file.
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&dir, scratch.path().join("seek-tables")).unwrap();
        assert!(problem(scratch.path()).ends_with("is no directory"));
        fs::remove_file(scratch.path().join("seek-tables")).unwrap();
        fs::write(scratch.path().join("seek-tables"), "").unwrap();
        assert!(problem(scratch.path()).ends_with("is no directory"));
    }
}
