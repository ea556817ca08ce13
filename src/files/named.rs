//! Files that a user names, for this program to write to.
//!
//! One rule for all of them. The directory is opened once and held, and the last name is looked at
//! there, by a handle:
//!
//! - A regular file is never written in place: another one takes its name, complete.
//! - A link is not followed: it is replaced in the same manner, as `pack --output` does it. So whoever
//!   may change the directory can lead nothing to another file.
//! - What is neither, such as a pipe or `/dev/null`, is written to; that which was looked at.
//! - `/dev/fd/N` and `/dev/stdout` are what this process was given, whatever it is: it was opened by
//!   whoever gave it.
//!
//! What is appended to ([`append`]) cannot be replaced: a link there is refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::output::{OutputFile, OutputPlace};
use super::place::Place;
use super::{calls, descriptor};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// Permissions of a new file, which the user's mask narrows.
const FILE_MODE: u32 = 0o666;

/// A file that is written in one piece. Dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct NamedFile {
    to: To,
    /// In messages.
    path: PathBuf,
}

#[derive(Debug)]
enum To {
    /// A new file, which will have the name.
    New(OutputFile),
    /// What is there.
    There(File),
}

impl NamedFile {
    /// Finds out whether the file can be written.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it cannot.
    pub fn create(path: &Path) -> Result<NamedFile> {
        if let Some(number) = descriptor::number(path) {
            let given = descriptor::duplicate(number).map_err(Error::io("write", path))?;
            return Ok(NamedFile::there(given, path));
        }
        let place = Place::of(path).map_err(|errno| Error::io("write", path)(errno.into()))?;
        NamedFile::at(place)
    }

    fn at(place: Place) -> Result<NamedFile> {
        let path = place.path.clone();
        let failed = |errno: Errno| Error::io("write", &path)(errno.into());
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match calls::openat(&place.dir, place.name.as_os_str(), flags, Mode::empty()) {
            Ok(found) => {
                let stat = calls::fstat(&found).map_err(failed)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile | FileType::Symlink => {}
                    FileType::Directory => return Err(failed(Errno::ISDIR)),
                    _ => {
                        let there = calls::open_again(&found, OFlags::WRONLY | OFlags::NOCTTY);
                        return Ok(NamedFile::there(there.map_err(failed)?, &path));
                    }
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let file = OutputPlace::over(place).create(FILE_MODE)?;
        Ok(NamedFile {
            to: To::New(file),
            path,
        })
    }

    fn there(there: OwnedFd, path: &Path) -> NamedFile {
        NamedFile {
            to: To::There(File::from(there)),
            path: path.to_path_buf(),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when writing fails;
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when something that is no file has taken the
    /// name meanwhile. What had the name has it then.
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        let failed = Error::io("write", &self.path);
        match self.to {
            To::There(mut file) => file.write_all(bytes).map_err(failed),
            To::New(file) => {
                calls::write_all_at(&file.handle()?, bytes, 0).map_err(failed)?;
                file.commit()
            }
        }
    }
}

/// A directory that a user names, for files whose names this program gives.
#[derive(Debug)]
pub struct NamedDirectory {
    dir: OwnedFd,
    path: PathBuf,
}

impl NamedDirectory {
    /// Opens it, which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub fn open(path: &Path) -> Result<NamedDirectory> {
        let dir = calls::open(path, OFlags::RDONLY | OFlags::DIRECTORY);
        Ok(NamedDirectory {
            dir: dir.map_err(|errno| Error::io("open directory", path)(errno.into()))?,
            path: path.to_path_buf(),
        })
    }

    /// A file in it; `name` is a single one.
    ///
    /// # Errors
    /// As [`NamedFile::create`].
    pub fn create(&self, name: &str) -> Result<NamedFile> {
        let path = self.path.join(name);
        let dir = self.dir.try_clone().map_err(Error::io("write", &path))?;
        NamedFile::at(Place {
            dir,
            name: OsStr::new(name).to_os_string(),
            path,
        })
    }
}

/// Opens a file to append to, which is made if there is none.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) for a symbolic link, else
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
pub fn append(path: &Path) -> Result<File> {
    if let Some(number) = descriptor::number(path) {
        let given = descriptor::duplicate(number).map_err(Error::io("append to", path))?;
        return reopened(given).map_err(Error::io("append to", path));
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
    let opened = Place::of(path).and_then(|place| {
        let mode = Mode::from_raw_mode(FILE_MODE);
        calls::openat(
            &place.dir,
            place.name.as_os_str(),
            flags | OFlags::NOCTTY,
            mode,
        )
    });
    match opened {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP) => Err(Error::refused(
            printable_path(path),
            "is a symbolic link, by which nothing is appended to another file; name that one",
        )),
        Err(errno) => Err(Error::io("append to", path)(errno.into())),
    }
}

/// The same file, and no lock that whoever opened it holds: what is appended to is kept open for long. What
/// is no file has none, and cannot always be opened again.
fn reopened(given: OwnedFd) -> std::io::Result<File> {
    if !FileType::from_raw_mode(calls::fstat(&given)?.st_mode).is_file() {
        return Ok(File::from(given));
    }
    let again = calls::open_again(&given, OFlags::WRONLY | OFlags::APPEND);
    Ok(File::from(again.unwrap_or(given)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::files::meanwhile::{exchange, meanwhile, race, rounds, while_exchanging};

    fn write(path: &Path, text: &str) -> Result<()> {
        NamedFile::create(path)?.write(text.as_bytes())
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn make_fifo(path: &Path) {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).unwrap();
    }

    #[test]
    fn k23_a_file_is_replaced_and_never_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write(&at("new"), "1").unwrap();
        fs::hard_link(at("new"), at("other")).unwrap();
        let before = fs::metadata(at("new")).unwrap().ino();
        write(&at("new"), "2").unwrap();
        assert_eq!(fs::read_to_string(at("new")).unwrap(), "2");
        assert_ne!(fs::metadata(at("new")).unwrap().ino(), before);
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "1");
        // A link is no way to another file, wherever it leads.
        for target in ["other", "absent", "/dev/null"] {
            symlink(target, at("link")).unwrap();
            write(&at("link"), "3").unwrap();
            assert!(!at("link").is_symlink());
            assert_eq!(fs::read_to_string(at("link")).unwrap(), "3");
            fs::remove_file(at("link")).unwrap();
        }
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "1");
        // Nothing is left of what is not written.
        drop(NamedFile::create(&at("dropped")).unwrap());
        assert_eq!(names(dir.path()), ["new", "other"]);
        for (path, why) in [
            (at(""), "is a directory"),
            (at("absent/file"), "no such file or directory"),
            (at("new/file"), "not a directory"),
            ("/dev/fd/1000000".into(), "bad file descriptor"),
        ] {
            let error = NamedFile::create(&path).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Environment);
            assert!(error.to_string().to_lowercase().contains(why), "{error}");
        }
    }

    #[test]
    fn k23_what_is_no_file_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        write(Path::new("/dev/null"), "nothing").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let fifo = dir.path().join("fifo");
        make_fifo(&fifo);
        let read = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read_to_string(fifo).unwrap()
        });
        write(&fifo, "through").unwrap();
        assert_eq!(read.join().unwrap(), "through");
        // A descriptor is itself, with its place in the file.
        let file = File::create_new(dir.path().join("file")).unwrap();
        (&file).write_all(b"before ").unwrap();
        write(Path::new(&format!("/dev/fd/{}", file.as_raw_fd())), "it").unwrap();
        (&file).write_all(b" after").unwrap();
        let mut text = String::new();
        let mut file = File::open(dir.path().join("file")).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before it after");
        assert_eq!(names(dir.path()), ["fifo", "file"]);
    }

    /// Whoever may change the directory, in which something that is no file has the name, puts a link
    /// to a file in its place.
    #[test]
    fn k23_no_link_is_followed_that_takes_the_place_of_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let secret = "of somebody else";
        fs::write(at("victim"), secret).unwrap();
        for n in 0..rounds(100) {
            let (name, link) = (at(&format!("{n}")), at(&format!("{n}-link")));
            make_fifo(&name);
            symlink(at("victim"), &link).unwrap();
            let held = rustix::fs::open(&name, OFlags::RDWR, Mode::empty()).unwrap();
            meanwhile([|| exchange(&name, &link)], || {
                match write(&name, "sha256:0") {
                    Ok(()) => {}
                    // What is no file took the name while the new one did.
                    Err(error) => assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}"),
                }
            });
            assert_eq!(fs::read_to_string(at("victim")).unwrap(), secret);
            drop(held);
        }
    }

    /// The name of a log takes turns with a link to somebody else's file, and the directory above it with a
    /// link to another one: a line goes to the log of one of them, and nowhere else.
    #[test]
    fn r13_no_link_is_followed_that_takes_the_place_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for place in ["here", "there"] {
            fs::create_dir(at(place)).unwrap();
        }
        fs::write(at("victim"), "of somebody else").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("there"), at("here-link")).unwrap();
        let pairs = [(at("here/log"), at("link")), (at("here"), at("here-link"))];
        let came = while_exchanging(&pairs, || {
            race(300, &["written", "refused"], |_| {
                let came = match append(&at("here/log")) {
                    Ok(mut log) => {
                        log.write_all(b"x").unwrap();
                        "written"
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}");
                        "refused"
                    }
                };
                let victim = fs::read_to_string(at("victim")).unwrap();
                assert_eq!(victim, "of somebody else");
                came
            })
        });
        // Wherever they are now; links among them lead to none.
        let logs = ["here/log", "here-link/log", "there/log", "link"].map(at);
        let of_file = |path: &PathBuf| match path.symlink_metadata() {
            Ok(found) if found.is_file() => Some((found.ino(), found.len())),
            _ => None,
        };
        let lengths: BTreeMap<u64, u64> = logs.iter().filter_map(of_file).collect();
        assert_eq!(lengths.values().sum::<u64>(), came["written"] as u64);
    }

    #[test]
    fn r13_what_is_appended_to_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for text in ["1", "2"] {
            append(&at("log"))
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "12");
        for target in ["log", "absent"] {
            symlink(target, at("link")).unwrap();
            let error = append(&at("link")).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Refused);
            assert!(error.to_string().contains("is a symbolic link"), "{error}");
            fs::remove_file(at("link")).unwrap();
        }
        assert_eq!(names(dir.path()), ["log"]);
        // A directory on the way may be one.
        symlink(dir.path(), at("here")).unwrap();
        append(&at("here/log")).unwrap().write_all(b"3").unwrap();
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "123");
    }
}
