//! Where a symbolic link leads, found without leaving the directories that are held.
//!
//! The kernel is never asked to follow a link: its text is read, and each component of it is looked
//! up by itself below the handle of the directory, so that whatever is exchanged meanwhile, what is
//! found lies below. A link that climbs out of the directory, or is absolute, may lead back into
//! it, or into another one that is held: then a directory on its way *is* that one, by its
//! identity. Only to find that is anything outside looked at.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::calls;
use super::identity::node;
use super::roots::{Location, Roots};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why there is nothing that a link stands for.
#[derive(Debug)]
pub(crate) enum Astray {
    /// It leads out of all that is held, by this text.
    Outside(PathBuf),
    /// There is nothing at its end.
    Nowhere,
    /// It leads back to itself.
    Circle,
    /// A system call failed.
    Failed(Errno),
}

/// What a link stands for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) location: Location,
    /// What is there.
    pub(crate) stat: Stat,
    /// The text of the link; of the last one, if there are several on the way.
    pub(crate) text: PathBuf,
}

/// Follows the link that is at `link`.
pub(crate) fn follow(roots: &Roots, link: &Location) -> Result<Target, Astray> {
    let mut way = Way {
        roots,
        at: Location {
            root: link.root,
            path: PathBuf::new(),
        },
        kind: FileType::Directory,
        rest: Vec::new(),
        text: PathBuf::new(),
    };
    way.put(&link.path);
    let mut links = 0;
    while let Some(step) = way.rest.pop() {
        if way.kind != FileType::Directory {
            return Err(Astray::Nowhere);
        }
        match step {
            Step::Here => {}
            Step::Up if way.at.path.pop() => {}
            Step::Up => way.come_back("..")?,
            Step::Root => way.come_back("/")?,
            Step::Down(name) => {
                let dir = way.open(OFlags::PATH | OFlags::DIRECTORY)?;
                let stat = calls::statat(&dir, name.as_os_str()).map_err(astray)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Astray::Circle);
                        }
                        // EINVAL: what was a link a moment ago is none now.
                        let text = calls::readlinkat(&dir, name.as_os_str()).map_err(|errno| {
                            Astray::Failed(match errno {
                                Errno::INVAL => Errno::NOENT,
                                errno => errno,
                            })
                        })?;
                        way.text = PathBuf::from(OsStr::from_bytes(text.to_bytes()));
                        way.put(&way.text.clone());
                    }
                    kind => {
                        way.at.path.push(name);
                        way.kind = kind;
                    }
                }
            }
        }
    }
    let stat = calls::fstat(way.open(OFlags::PATH)?).map_err(astray)?;
    Ok(Target {
        location: way.at,
        stat,
        text: way.text,
    })
}

/// A component that is still to be gone.
enum Step {
    Root,
    Here,
    Up,
    Down(OsString),
}

struct Way<'a> {
    roots: &'a Roots,
    /// Where it has come to.
    at: Location,
    /// What is there.
    kind: FileType,
    /// What is to come, the next step last.
    rest: Vec<Step>,
    /// Of the last link on the way.
    text: PathBuf,
}

impl Way<'_> {
    /// Opens what is where the way has come to.
    fn open(&self, flags: OFlags) -> Result<OwnedFd, Astray> {
        self.roots.open(&self.at, flags).map_err(astray)
    }

    /// Puts a path in front of what is to come.
    fn put(&mut self, path: &Path) {
        // `a/` and `a/.` are a directory: `components` does not tell.
        let bytes = path.as_os_str().as_bytes();
        if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            self.rest.push(Step::Here);
        }
        let steps = path.components().rev().map(|component| match component {
            Component::Prefix(_) | Component::RootDir => Step::Root,
            Component::CurDir => Step::Here,
            Component::ParentDir => Step::Up,
            Component::Normal(name) => Step::Down(name.to_os_string()),
        });
        self.rest.extend(steps);
    }

    /// Goes on outside, first to `start` as seen from the root, until a directory is one of the
    /// roots.
    fn come_back(&mut self, start: &str) -> Result<(), Astray> {
        let nodes = self.roots.iter().map(|root| Ok(node(&calls::fstat(root)?)));
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>().map_err(astray)?;
        let root = self.roots.get(self.at.root).map_err(astray)?;
        // Only its identity is looked at.
        let open = |from: BorrowedFd<'_>, name: &OsStr| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = calls::openat(from, name, flags, Mode::empty())?;
            let node = node(&calls::fstat(&dir)?);
            Ok((dir, node))
        };
        let mut there = open(root, start.as_ref());
        loop {
            let outside = || Astray::Outside(self.text.clone());
            let (dir, node) = there.map_err(|_: Errno| outside())?;
            if let Some(root) = nodes.iter().position(|root| *root == node) {
                self.at = Location {
                    root,
                    path: PathBuf::new(),
                };
                self.kind = FileType::Directory;
                return Ok(());
            }
            there = match self.rest.pop().ok_or_else(outside)? {
                Step::Root => open(root, "/".as_ref()),
                Step::Here => Ok((dir, node)),
                Step::Up => open(dir.as_fd(), "..".as_ref()),
                Step::Down(name) => open(dir.as_fd(), &name),
            };
        }
    }
}

fn astray(errno: Errno) -> Astray {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Astray::Nowhere,
        Errno::LOOP => Astray::Circle,
        errno => Astray::Failed(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Where a link with this text leads, the link being `dir/link`.
    fn follow_text(text: &str) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("dir/sub")).unwrap();
        fs::write(root.join("dir/file"), b"").unwrap();
        fs::write(scratch.path().join("secret"), b"").unwrap();
        symlink("root", scratch.path().join("alias")).unwrap();
        symlink("dir/sub", root.join("short")).unwrap();
        symlink("link", root.join("dir/back")).unwrap();
        let text = text.replace('^', scratch.path().to_str().unwrap());
        symlink(text, root.join("dir/link")).unwrap();
        fs::create_dir_all(scratch.path().join("second/below")).unwrap();
        fs::write(scratch.path().join("second/below/file"), b"").unwrap();
        symlink("../../secret", scratch.path().join("second/below/out")).unwrap();
        symlink("../root/dir/file", scratch.path().join("second/over")).unwrap();
        let paths = [root, scratch.path().join("second")];
        let held = paths.iter().map(|path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            calls::open(path, flags).unwrap()
        });
        match follow(&Roots::new(held), &Location::below("dir/link")) {
            Ok(Target { location, stat, .. }) => {
                let path = paths[location.root].join(&location.path);
                let found = path.symlink_metadata().unwrap();
                assert_eq!(std::os::unix::fs::MetadataExt::ino(&found), stat.st_ino);
                let below = ["", "second:"][location.root];
                format!("{below}{}", location.path.to_str().unwrap())
            }
            Err(Astray::Outside(_)) => "outside".into(),
            Err(Astray::Nowhere) => "nowhere".into(),
            Err(Astray::Circle) => "circle".into(),
            Err(Astray::Failed(errno)) => errno.to_string(),
        }
    }

    #[test]
    fn k5_where_links_lead() {
        for (text, leads) in [
            ("file", "dir/file"),
            ("./sub/../file", "dir/file"),
            ("sub/", "dir/sub"),
            ("../short", "dir/sub"),
            ("../short/../file", "dir/file"),
            ("..", ""),
            (".", "dir"),
            // Out and in again, by any name.
            ("../../root/dir/file", "dir/file"),
            ("../../alias/dir/file", "dir/file"),
            ("^/root/dir/file", "dir/file"),
            ("^/alias/short", "dir/sub"),
            ("^/root", ""),
            // Into another one that is held, through it, and out of it.
            ("../../second/below/file", "second:below/file"),
            ("^/second/below", "second:below"),
            ("../../second", "second:"),
            ("../../second/../root/short", "dir/sub"),
            ("../../second/over", "dir/file"),
            ("../../second/below/../../secret", "outside"),
            ("../../second/below/out", "outside"),
            ("../../second/absent", "nowhere"),
            // Where there is no such thing.
            ("file/", "nowhere"),
            ("file/.", "nowhere"),
            ("file/..", "nowhere"),
            ("file/x", "nowhere"),
            ("absent", "nowhere"),
            ("absent/../file", "nowhere"),
            ("^/root/absent", "nowhere"),
            ("link", "circle"),
            ("back", "circle"),
            ("../../secret", "outside"),
            ("../..", "outside"),
            ("^/secret", "outside"),
            ("^/absent", "outside"),
            ("/", "outside"),
            ("../../../../../../../../../../../../etc/passwd", "outside"),
            ("/proc/self/root/etc", "outside"),
        ] {
            assert_eq!(follow_text(text), leads, "{text}");
        }
    }
}
