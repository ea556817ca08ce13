//! A file for messages of mounts in the background where there is no system log, as in most containers:
//! `/var/log/modeloci.log` of root, `modeloci/mount.log` below the user's directory for state; that is also
//! for a root who may not write to the first, as in a user namespace.
//!
//! All mounts of a user append to it, line by line, each with its time and process. It is opened for each
//! line, below a directory that is held, so that it can be renamed or removed at any time; one that has
//! become large is renamed, in the place of the one before. A link, a pipe or a file of several names is
//! not written to.
//!
//! The variables that name those directories may be another user's, whom root has followed with `su`. So
//! all of the way there must be root's or this user's own, and the directory open to nobody else
//! ([`own_directory`]): otherwise whoever decides about a part of it would have root write where they say.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use modeloci::mount::parts::own_directory;
use modeloci::oci::time;
use modeloci::printable::printable_path;
use modeloci::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};

/// From this size on, in bytes, the file is renamed: at most twice as much is kept.
const MAX_BYTES: i64 = 1 << 20;
/// What the file before is called.
const OLD: &str = ".old";
/// As of a log that may name paths of the user.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The file. It need not exist.
pub(crate) struct LocalLog {
    dir: OwnedFd,
    name: &'static str,
}

impl LocalLog {
    /// The file of this user, in a directory that is made where it is missing.
    ///
    /// # Errors
    /// When this user has no directory for it, or nothing can be appended there.
    pub(crate) fn open() -> Result<LocalLog> {
        let is_root = rustix::process::geteuid().is_root();
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        LocalLog::first(&places(variable, is_root))
    }

    /// The first that can be written to. The error is that of the place where it belongs.
    fn first(places: &[(PathBuf, &'static str)]) -> Result<LocalLog> {
        let mut first = None;
        for (dir, name) in places {
            match LocalLog::at(dir, name) {
                Ok(log) => return Ok(log),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::environment("HOME", "is not set")))
    }

    fn at(dir: &Path, name: &'static str) -> Result<LocalLog> {
        let cannot = format!("cannot append to {}", printable_path(&dir.join(name)));
        let dir_of_ours = own_directory(dir, &cannot)?;
        let log = LocalLog {
            dir: dir_of_ours,
            name,
        };
        match log.file() {
            Ok(_) => Ok(log),
            Err(error) => Err(Error::environment(cannot, error.to_string())),
        }
    }

    /// Appends a line.
    pub(crate) fn append(&self, line: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = time::format(now.map_or(0, |now| now.as_secs()));
        let mut text = format!("{now} modeloci[{}]: ", std::process::id()).into_bytes();
        text.extend_from_slice(line.trim_ascii_end());
        text.push(b'\n');
        let (mut file, size) = self.file()?;
        if size >= MAX_BYTES {
            let old = format!("{}{OLD}", self.name);
            rustix::fs::renameat(&self.dir, self.name, &self.dir, old)?;
            (file, _) = self.file()?;
        }
        // In one piece, so that lines of several processes do not mix.
        file.write_all(&text)
    }

    /// The file, and its size.
    fn file(&self) -> io::Result<(File, i64)> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        // A pipe is not waited for.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, self.name, flags, MODE)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
            return Err(io::Error::other("is not a regular file with one name"));
        }
        Ok((File::from(file), stat.st_size))
    }
}

/// The directories and the names in them, best first: below `$XDG_STATE_HOME` where that is set, else in
/// `/var/log` for root, else in the user's home. The XDG specification says that a relative path is to be
/// ignored.
fn places(
    variable: impl Fn(&str) -> Option<PathBuf>,
    is_root: bool,
) -> Vec<(PathBuf, &'static str)> {
    let absolute = |name| variable(name).filter(|dir| dir.is_absolute());
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return vec![(state.join("modeloci"), "mount.log")];
    }
    let mut places = Vec::new();
    if is_root {
        places.push(("/var/log".into(), "modeloci.log"));
    }
    if let Some(home) = absolute("HOME") {
        places.push((home.join(".local/state/modeloci"), "mount.log"));
    }
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use modeloci_test_support::meanwhile::{exchange, meanwhile, race};

    use super::*;

    #[test]
    fn root_and_users_have_a_place_for_messages() {
        let of = |set: &[(&str, &str)], is_root| {
            let variable = |name: &str| {
                let value = set.iter().find(|(key, _)| *key == name);
                value.map(|(_, value)| PathBuf::from(value))
            };
            let places = places(variable, is_root).into_iter();
            places.map(|(dir, name)| dir.join(name)).collect::<Vec<_>>()
        };
        let home = ("HOME", "/home/u");
        let state = ("XDG_STATE_HOME", "/state");
        let of_home = PathBuf::from("/home/u/.local/state/modeloci/mount.log");
        let of_root = PathBuf::from("/var/log/modeloci.log");
        assert_eq!(of(&[home], true), [of_root.clone(), of_home.clone()]);
        assert_eq!(of(&[], true), [of_root]);
        assert_eq!(of(&[home], false), std::slice::from_ref(&of_home));
        assert_eq!(of(&[home, ("XDG_STATE_HOME", "state")], false), [of_home]);
        for is_root in [true, false] {
            let path = PathBuf::from("/state/modeloci/mount.log");
            assert_eq!(of(&[home, state], is_root), [path]);
        }
        assert!(of(&[], false).is_empty());
    }

    #[test]
    fn r13_who_may_not_write_to_the_one_place_takes_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (shut, open) = (file.join("log"), dir.path().join("state"));
        let log = LocalLog::first(&[(shut.clone(), "a"), (open.clone(), "b")]).unwrap();
        log.append(b"info: here\n").unwrap();
        assert!(
            fs::read_to_string(open.join("b"))
                .unwrap()
                .ends_with(": info: here\n")
        );
        let shut = [(shut, "a"), (file.join("state"), "b")];
        let error = LocalLog::first(&shut).err().unwrap().to_string();
        assert!(error.contains("file/log/a"), "{error}");
        let error = LocalLog::first(&[]).err().unwrap();
        assert_eq!(error.to_string(), "HOME: is not set");
    }

    #[test]
    fn r13_a_log_of_ones_own_has_whole_lines_and_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/modeloci/mount.log");
        let log = LocalLog::at(path.parent().unwrap(), "mount.log").unwrap();
        log.append(b"info: first\n").unwrap();
        log.append(b"error: second\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let pid = format!("modeloci[{}]: ", std::process::id());
        let lines: Vec<_> = text
            .lines()
            .map(|l| l.split_once(&pid).unwrap().1)
            .collect();
        assert_eq!(lines, ["info: first", "error: second"]);
        assert!(
            text.starts_with("20") && text.contains("Z modeloci["),
            "{text}"
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let line = [&[b'x'; 100_000][..], b"\n"].concat();
        for _ in 0..40 {
            log.append(&line).unwrap();
        }
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        let most = MAX_BYTES as u64 + 200_000;
        let old = path.with_extension("log.old");
        assert!(size(&path) < most && size(&old) < most);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        // Whoever takes it away gets a new one.
        fs::remove_file(&path).unwrap();
        log.append(b"info: again\n").unwrap();
        assert!(size(&path) < 100);
    }

    #[test]
    fn r13_no_link_or_pipe_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("victim"), "victim").unwrap();
        symlink("victim", at("link")).unwrap();
        fs::hard_link(at("victim"), at("hard")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(made.unwrap().success());
        for name in ["link", "hard", "pipe"] {
            assert!(LocalLog::at(dir.path(), name).is_err(), "{name}");
        }
        assert!(LocalLog::at(&at("victim"), "mount.log").is_err());
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "victim");
    }

    /// A scratch directory with a victim beside the places that a log may have.
    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(real.join("victim")).unwrap();
        (dir, real)
    }

    /// Every component of the way, as another user could have it.
    #[test]
    fn r13_what_others_could_lead_elsewhere_is_no_place_for_a_log() {
        let parts = ["home", ".local", "state", "modeloci"];
        for part in 0..parts.len() {
            let (_dir, root) = scene();
            let at = |count: usize| parts[..count].iter().fold(root.clone(), |p, n| p.join(n));
            fs::create_dir_all(at(part)).unwrap();
            let log = || LocalLog::at(&at(parts.len()), "mount.log");
            // Somebody else could exchange it.
            fs::create_dir_all(at(part + 1)).unwrap();
            fs::set_permissions(at(part + 1), fs::Permissions::from_mode(0o777)).unwrap();
            let error = log().err().unwrap().to_string();
            assert!(error.ends_with("can be written to by others"), "{error}");
            fs::set_permissions(at(part + 1), fs::Permissions::from_mode(0o1777)).unwrap();
            assert_eq!(log().is_ok(), part + 1 < parts.len(), "a sticky directory");
            fs::remove_dir_all(at(part + 1)).unwrap();
            // It leads elsewhere: another user's link, the last one also of root.
            symlink(root.join("victim"), at(part + 1)).unwrap();
            let is_root = rustix::process::geteuid().is_root();
            if is_root {
                std::os::unix::fs::lchown(at(part + 1), Some(12345), None).unwrap();
            }
            if is_root || part + 1 == parts.len() {
                assert!(log().is_err(), "{part}");
                assert_eq!(fs::read_dir(root.join("victim")).unwrap().count(), 0);
            }
        }
    }

    /// A user exchanges each component with a link to a directory of root, again and again.
    #[test]
    fn r13_no_log_is_written_elsewhere_while_parts_of_its_path_are_exchanged() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root has links of another user");
            return;
        }
        let parts = ["home", ".local", "state", "modeloci"];
        race(50, &["written"], |round| {
            let (_dir, root) = scene();
            let at = |count: usize| parts[..count].iter().fold(root.clone(), |p, n| p.join(n));
            let part = at(1 + round % parts.len());
            fs::create_dir_all(at(parts.len())).unwrap();
            let link = root.join("link");
            symlink(root.join("victim"), &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
            let mut came = "refused";
            meanwhile([|| exchange(&part, &link)], || {
                for _ in 0..20 {
                    if let Ok(log) = LocalLog::at(&at(parts.len()), "mount.log") {
                        log.append(b"info: here\n").unwrap();
                        came = "written";
                    }
                }
            });
            assert_eq!(fs::read_dir(root.join("victim")).unwrap().count(), 0);
            came
        });
    }
}
