//! Finds the files of a model directory, in the order of their paths' bytes.
//!
//! Guarantees: the result depends on the tree alone. The directory is opened once; every further
//! step is a single name in a directory that is held, so that whoever exchanges directories with
//! links meanwhile leads the walk nowhere else. What links may lead to beyond the directory
//! ([`Reach`]) is below a further handle. Nothing but directories is opened, so that a FIFO
//! or device cannot block or act. A symbolic link stands for what it leads to, as long as that
//! lies inside the directory, or in its reach. Refuses, by name: special files; links that lead outside, nowhere or
//! in a circle; names that no [`EntryPath`] can hold (all of them in one error). What the
//! [`Selection`] leaves out may be anything.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::content::is_unfinished;
use super::hub;
use super::select::{IGNORE_FILE, Selection};
use super::tree::{InputFile, Other, OtherKind, Tree};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::files::identity::{Identity, node};
use crate::files::links::{self, Astray, Target};
use crate::files::output::OutputPlace;
use crate::files::roots::{Location, Roots};
use crate::files::temporary::is_temporary_name;
use crate::files::{self, beneath, calls};
use crate::limits;
use crate::printable::{printable_bytes, printable_path};

/// Where the Hugging Face client keeps unfinished downloads; left out by default.
const DOWNLOADS: &[u8] = b".cache/huggingface";

/// How a directory is opened: itself, never what a link of its name leads to.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

/// What the walk passes over.
#[derive(Debug, Default)]
pub(super) struct Skip {
    /// The output that will be replaced.
    pub output: Option<(u64, u64)>,
    /// The directory of the output, where an interrupted run may have left a temporary file.
    pub output_dir: Option<(u64, u64)>,
}

impl Skip {
    /// What a walk of the directory around an output passes over.
    pub(super) fn around(output: &OutputPlace) -> Result<Skip> {
        Ok(Skip {
            output: output.existing(),
            output_dir: Some(output.dir()?),
        })
    }
}

/// What is to be packed, held.
#[derive(Debug)]
pub(super) enum Input {
    /// A directory, for [`walk`].
    Directory(OwnedFd),
    /// A single file.
    File(files::place::Place, Stat),
}

/// Opens what is to be packed: a directory, or a file. A link leads to what it names.
pub(super) fn open(model: &Path) -> Result<Input> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let not_found = || {
        let shown = printable_path(model);
        Error::usage(format!("model directory {shown} does not exist"))
    };
    match calls::open(model, flags) {
        Ok(root) => return Ok(Input::Directory(root)),
        Err(Errno::NOTDIR) if !model.as_os_str().as_bytes().ends_with(b"/") => {}
        Err(Errno::NOTDIR) => {
            let shown = printable_path(model);
            return Err(Error::usage(format!("{shown} is not a directory")));
        }
        Err(Errno::NOENT) => return Err(not_found()),
        Err(errno) => return Err(Error::io("open", model)(errno.into())),
    }
    let refused = || {
        let shown = printable_path(model);
        Error::usage(format!("{shown} is not a directory, nor a regular file"))
    };
    let (place, stat) = files::place::Place::of_target(model).map_err(|errno| match errno {
        Errno::NOENT => not_found(),
        Errno::NOTDIR | Errno::ISDIR => refused(),
        errno => Error::io("open", model)(errno.into()),
    })?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Input::File(place, stat)),
        _ => Err(refused()),
    }
}

/// A single file as a model: its name there is the last one of `model`, wherever a link leads.
pub(super) fn single(
    place: files::place::Place,
    stat: &Stat,
    model: &Path,
    skip: &Skip,
) -> Result<Tree> {
    let refuse = |problem: &str| Error::refused(printable_path(model), problem);
    if skip.output == Some(node(stat)) {
        return Err(refuse("is the output, too"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > limits::MAX_FILE_BYTES {
        let limit = limits::MAX_FILE_BYTES;
        return Err(refuse(&format!("has {size} bytes, the limit is {limit}")));
    }
    let name = model.file_name().unwrap_or_default();
    let name = name.to_str().ok_or_else(|| refuse("is not UTF-8"))?;
    let title = EntryPath::new(name).map_err(|error| refuse(&error.to_string()))?;
    Ok(Tree::of_file(place, stat, title, model))
}

/// How far links may lead.
#[derive(Debug)]
pub(super) struct Reach {
    /// The model's directory.
    model: OwnedFd,
    /// Everything is below these: the model's directory itself, and the blobs of the repository in a
    /// cache of which it is a snapshot; or the root of the file system.
    roots: Roots,
    /// Where the model's directory is.
    start: Location,
    /// Whether links may lead anywhere.
    dereference: bool,
}

impl Reach {
    /// The reach of links in the open directory `model`, which has the path `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when it is a cache, and not a model.
    pub(super) fn of(model: OwnedFd, path: &Path, dereference: bool) -> Result<Reach> {
        hub::check(path, &model)?;
        let (roots, start) = if dereference {
            let (root, start) = everything(path, &model)?;
            (Roots::new([root]), Location::below(start))
        } else {
            let same = model.try_clone().map_err(Error::io("open", path))?;
            let roots = std::iter::once(same).chain(hub::blobs(&model));
            (Roots::new(roots), Location::default())
        };
        Ok(Reach {
            model,
            roots,
            start,
            dereference,
        })
    }
}

/// The root of the file system, and where `model` is below it.
fn everything(path: &Path, model: &OwnedFd) -> Result<(OwnedFd, PathBuf)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "what it finds is compared with what is held"
    )]
    let real = path.canonicalize().map_err(Error::io("find", path))?;
    let root = calls::open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| Error::io("open", "/")(errno.into()))?;
    let prefix = real.strip_prefix("/").unwrap_or(&real).to_path_buf();
    // What was resolved a second time counts only if it is the same.
    let there = beneath::open(root.as_fd(), &prefix, OFlags::PATH | OFlags::DIRECTORY);
    let stats = (there.and_then(calls::fstat), calls::fstat(model));
    match stats {
        (Ok(there), Ok(model)) if node(&there) == node(&model) => Ok((root, prefix)),
        _ => Err(Error::refused(
            printable_path(path),
            "changed while it was packed",
        )),
    }
}

/// Walks the model's directory, which `model_dir` names in messages, for what `selection` selects.
pub(super) fn walk(
    reach: Reach,
    model_dir: &Path,
    skip: &Skip,
    selection: &mut Selection,
) -> Result<Tree> {
    let mut walker = Walker {
        reach: &reach,
        root_path: model_dir,
        skip,
        selection,
        unfinished: Vec::new(),
        entries: 0,
        files: Vec::new(),
        others: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
        ancestors: Vec::new(),
    };
    let start = Place {
        location: reach.start.clone(),
        ..Place::default()
    };
    walker.ignore_file(&start)?;
    walker.directory(&reach.model, &start)?;
    let Walker {
        mut files,
        others,
        refused,
        selection,
        unfinished,
        mut warnings,
        ..
    } = walker;
    check_refused(&refused, model_dir)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    warnings.sort();
    if files.is_empty() && selection.has_includes() {
        return Err(Error::refused(
            printable_path(model_dir),
            "no file of it is included",
        ));
    }
    if files.is_empty() {
        warnings.push(format!("{} holds no files", printable_path(model_dir)));
    }
    Ok(Tree {
        roots: reach.roots,
        root_path: model_dir.to_path_buf(),
        named: None,
        files,
        others,
        unfinished,
        warnings,
    })
}

/// Names all that cannot be packed, in one error.
fn check_refused(refused: &[String], model_dir: &Path) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let names = match refused.len() {
        1 => "a name".into(),
        n => format!("{n} names"),
    };
    let rule = format!("{names} cannot be packed: {}", refused.join(", "));
    Err(Error::refused(printable_path(model_dir), rule))
}

/// A directory or file on the way.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Its path in the model; empty for the root.
    path: Vec<u8>,
    /// Where it is, links resolved.
    location: Location,
    /// Number of components of `path`.
    depth: usize,
    /// True when a component was refused already: what lies below is only searched for more names
    /// to refuse.
    refused: bool,
}

impl Place {
    fn child(&self, name: &OsStr) -> Place {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Place {
            path,
            location: self.location.join(name),
            depth: self.depth + 1,
            refused: self.refused,
        }
    }
}

struct Walker<'a> {
    reach: &'a Reach,
    root_path: &'a Path,
    skip: &'a Skip,
    selection: &'a mut Selection,
    /// Of downloads, in directories that are left out.
    unfinished: Vec<String>,
    entries: usize,
    files: Vec<InputFile>,
    others: Vec<Other>,
    refused: Vec<String>,
    warnings: Vec<String>,
    /// The directories that the walk is in, to detect links back to one of them.
    ancestors: Vec<(u64, u64)>,
}

impl Walker<'_> {
    /// Walks one directory; recursion is as deep as paths may be, [`limits::MAX_PATH_DEPTH`].
    fn directory(&mut self, fd: &OwnedFd, place: &Place) -> Result<()> {
        let stat = calls::fstat(fd).map_err(|errno| self.failed("read", place, errno))?;
        let names = self.names(fd, place)?;
        if names.is_empty() && place.depth > 0 {
            self.empty(place)?;
        }
        let here = node(&stat);
        self.ancestors.push(here);
        for name in names {
            let child = place.child(&name);
            if self.skip.output_dir == Some(here) && is_temporary_name(&name) {
                self.warnings.push(format!(
                    "\"{}\" was left by an interrupted run and is not packed",
                    printable_bytes(&child.path)
                ));
                continue;
            }
            self.entry(fd, &name, child)?;
        }
        self.ancestors.pop();
        Ok(())
    }

    /// The names in a directory, sorted by their bytes.
    fn names(&mut self, fd: &OwnedFd, place: &Place) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        let failed = |walker: &Self, errno| walker.failed("read", place, errno);
        let mut entries = calls::list(fd).map_err(|errno| failed(self, errno))?;
        while let Some(entry) = calls::next_entry(&mut entries) {
            let entry = entry.map_err(|errno| failed(self, errno))?;
            let name = CStr::to_bytes(entry.file_name());
            if name != b"." && name != b".." {
                self.entries += 1;
                if self.entries > limits::MAX_NODES {
                    return Err(Error::refused(
                        printable_path(self.root_path),
                        format!(
                            "holds more than {} files and directories",
                            limits::MAX_NODES
                        ),
                    ));
                }
                names.push(OsStr::from_bytes(name).to_os_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn entry(&mut self, fd: &OwnedFd, name: &OsStr, mut place: Place) -> Result<()> {
        let stat = calls::statat(fd, name).map_err(|errno| self.failed("read", &place, errno))?;
        if self.skip.output == Some(node(&stat)) {
            return Ok(());
        }
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.selection.excludes(&place.path, is_dir) {
            return match is_dir && place.path.ends_with(DOWNLOADS) {
                true => self.unfinished(fd, name, &place),
                false => Ok(()),
            };
        }
        if let Some(rule) = broken_rule(name, &place) {
            self.refused
                .push(format!("\"{}\" {rule}", printable_bytes(&place.path)));
            place.refused = true;
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(&stat, place),
            FileType::Directory if too_long(&place) => Ok(()),
            FileType::Directory => {
                let dir = calls::openat(fd, name, DIRECTORY, Mode::empty())
                    .map_err(|errno| self.failed("open", &place, errno))?;
                self.directory(&dir, &place)
            }
            FileType::Symlink if place.refused => Ok(()),
            FileType::Symlink => self.link(place),
            special => Err(self.special(&place, special)),
        }
    }

    /// Reads the model's own file of patterns.
    fn ignore_file(&mut self, start: &Place) -> Result<()> {
        let mut place = start.child(OsStr::new(IGNORE_FILE));
        let mut stat = match calls::statat(&self.reach.model, IGNORE_FILE) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed("read", &place, errno)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = self.follow(&place)?;
            (place.location, stat) = (target.location, target.stat);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refuse(&place, "is not a regular file"));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = (self.reach.roots.open(&place.location, flags))
            .map_err(|errno| self.failed("open", &place, errno))?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > limits::MAX_IGNORE_FILE_BYTES {
            let limit = limits::MAX_IGNORE_FILE_BYTES;
            let problem = format!("has {size} bytes, the limit is {limit}");
            return Err(self.refuse(&place, problem));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        calls::read_exact(&File::from(file), &mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.refuse(&place, "shrank while it was packed"),
            _ => Error::io("read", self.root_path.join(IGNORE_FILE))(error),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| self.refuse(&place, "is not UTF-8"))?;
        self.selection.take_file(&text)
    }

    /// What an interrupted download left in a directory that is left out.
    fn unfinished(&mut self, fd: &OwnedFd, name: &OsStr, place: &Place) -> Result<()> {
        if too_long(place) {
            return Ok(());
        }
        let dir = calls::openat(fd, name, DIRECTORY, Mode::empty())
            .map_err(|errno| self.failed("open", place, errno))?;
        for name in self.names(&dir, place)? {
            let child = place.child(&name);
            let stat =
                calls::statat(&dir, &*name).map_err(|errno| self.failed("read", &child, errno))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.unfinished(&dir, &name, &child)?,
                FileType::RegularFile if is_unfinished(&name.to_string_lossy()) => {
                    self.unfinished.push(printable_bytes(&child.path));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A directory with nothing in it: some servers want it.
    fn empty(&mut self, place: &Place) -> Result<()> {
        let text = String::from_utf8_lossy(&place.path);
        if place.refused || !self.selection.includes(&text) {
            return Ok(());
        }
        self.count_layers()?;
        self.others.push(Other {
            path: EntryPath::new(&text)?,
            kind: OtherKind::Directory,
        });
        Ok(())
    }

    fn count_layers(&self) -> Result<()> {
        if self.files.len() + self.others.len() < limits::MAX_LAYERS {
            return Ok(());
        }
        Err(Error::refused(
            printable_path(self.root_path),
            format!("holds more than {} files", limits::MAX_LAYERS),
        ))
    }

    fn file(&mut self, stat: &Stat, place: Place) -> Result<()> {
        if place.refused {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&place.path);
        if !self.selection.includes(&text) {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > limits::MAX_FILE_BYTES {
            return Err(self.refuse(
                &place,
                format!("has {size} bytes, the limit is {}", limits::MAX_FILE_BYTES),
            ));
        }
        self.count_layers()?;
        self.files.push(InputFile {
            path: EntryPath::new(&text)?,
            location: place.location,
            executable: stat.st_mode & 0o111 != 0,
            identity: Identity::of(stat),
        });
        Ok(())
    }

    /// A symbolic link stands for what it leads to.
    fn link(&mut self, mut place: Place) -> Result<()> {
        let Target {
            location,
            stat,
            text,
        } = self.follow(&place)?;
        place.location = location;
        if self.skip.output == Some(node(&stat)) {
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(&stat, place),
            FileType::Directory
                if self.ancestors.contains(&node(&stat))
                    || self.reach.start.is_in(&place.location) =>
            {
                Err(self.refuse(&place, "is a symbolic link to a directory that contains it"))
            }
            // A cache keeps files elsewhere, but no directories.
            FileType::Directory
                if !self.reach.dereference && !place.location.is_in(&self.reach.start) =>
            {
                Err(self.outside(&place, &text))
            }
            // A link by itself is no directory to the patterns.
            FileType::Directory if self.selection.excludes(&place.path, true) => Ok(()),
            FileType::Directory => {
                let dir = (self.reach.roots.open(&place.location, DIRECTORY))
                    .map_err(|errno| self.failed("open", &place, errno))?;
                self.directory(&dir, &place)
            }
            special => Err(self.special(&place, special)),
        }
    }

    /// Where a link leads, and what is there.
    fn follow(&self, place: &Place) -> Result<Target> {
        links::follow(&self.reach.roots, &place.location).map_err(|astray| match astray {
            Astray::Nowhere => self.refuse(place, "is a symbolic link that leads nowhere"),
            Astray::Circle => self.refuse(place, "is a symbolic link that leads in a circle"),
            Astray::Outside(text) => self.outside(place, &text),
            Astray::Failed(errno) => self.failed("resolve", place, errno),
        })
    }

    fn outside(&self, place: &Place, target: &Path) -> Error {
        self.refuse(
            place,
            format!(
                "is a symbolic link out of the model directory, to {}; --dereference follows it",
                printable_path(target)
            ),
        )
    }

    fn special(&self, place: &Place, kind: FileType) -> Error {
        let what = match kind {
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            FileType::Symlink => return self.refuse(place, "changed while it was packed"),
            _ => "of an unknown type",
        };
        self.refuse(
            place,
            format!("is {what}; only files, directories and links can be packed"),
        )
    }

    fn refuse(&self, place: &Place, problem: impl std::fmt::Display) -> Error {
        let path = self.root_path.join(OsStr::from_bytes(&place.path));
        Error::refused(printable_path(&path), problem)
    }

    fn failed(&self, action: &'static str, place: &Place, errno: Errno) -> Error {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                self.refuse(place, "vanished while it was packed")
            }
            errno => Error::io(action, self.root_path.join(OsStr::from_bytes(&place.path)))(
                io::Error::from(errno),
            ),
        }
    }
}

/// True for a directory so deep that it was refused itself: it is not searched.
fn too_long(place: &Place) -> bool {
    place.depth > limits::MAX_PATH_DEPTH || place.path.len() > limits::MAX_PATH_BYTES
}

/// Why the name cannot be packed; `None` when it can, or when a directory above is to blame.
fn broken_rule(name: &OsStr, place: &Place) -> Option<String> {
    let rule = |text: &str| match EntryPath::new(text) {
        Err(Error::Malformed { rule, .. }) => Some(rule.to_string()),
        _ => None,
    };
    let Some(text) = name.to_str() else {
        return Some("is not UTF-8".into());
    };
    match rule(text) {
        None if place.refused => None,
        None => rule(std::str::from_utf8(&place.path).ok()?),
        broken => broken,
    }
}
