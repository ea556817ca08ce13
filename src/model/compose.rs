//! Puts the members of layers together: one tree of what stands at each path, whichever layer it is in.
//!
//! Layers of an image lie over each other: what a later one holds stands in place of what was there, and
//! a *whiteout* takes away what was below (OCI image layout, "Layer"). Elsewhere two layers for one path
//! are an error; within one layer the later member wins everywhere, as it does for tar.
//!
//! A link inside is served as the file or directory that it leads to, so that a mount has none. It is
//! followed as a kernel would that has the tree for its root. Links that lead nowhere, out of it or in a
//! circle, devices, and names that no model may have are left out with a remark, as what cannot be had
//! of an image that holds a whole system. That many links to directories do not make a tree without end
//! is the same bound on files and directories that all models have.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::notes::Notes;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::{LinkTarget, Listed, ListedKind};
use crate::limits;
use crate::printable::{printable_bytes, shown};
use crate::systems::{ArchiveLayer, Names, System};

/// Which file stands at a path: who composes gives each a number.
pub(super) type FileNumber = u32;

/// What stands at each path.
pub(super) struct Composed<'a> {
    nodes: Vec<Node>,
    /// Layers lie over each other.
    overlays: bool,
    /// Links that the manifest names are left out, too, where they lead nowhere.
    forgiving: bool,
    /// Memory that is left for nodes, in bytes,
    memory: u64,
    /// and steps for links.
    steps: Cell<u64>,
    notes: &'a mut Notes,
}

struct Node {
    what: What,
    /// The directory that it is in.
    parent: u32,
    /// The layer that it comes from, by its place in the manifest.
    layer: usize,
}

enum What {
    Directory(BTreeMap<Box<str>, u32>),
    File(FileNumber),
    Link(Link),
}

/// A link, as stored.
#[derive(Clone)]
struct Link {
    target: Box<str>,
    /// It counts from the root, and not from the directory that it is in.
    from_root: bool,
    /// The manifest names it: it must lead somewhere.
    named: bool,
}

/// Where a node leads, and the link that it is; or the link, and why it leads nowhere.
type End<'a> = Result<(u32, Option<&'a Link>), (&'a Link, Why)>;

/// Memory that a node takes besides its name, in bytes: in the list of them, and in its directory.
const NODE_BYTES: u64 = 160;
/// Names on the way to where links lead, of all links together, and what whiteouts take away. An image of a whole system has a hundred
/// thousand links of ten names.
const MOST_STEPS: u64 = 1 << 25;

/// The root's number.
const ROOT: u32 = 0;

/// Why something is left out: a clause that follows its name.
type Why = String;

/// What a model consists of.
#[derive(Default)]
pub(super) struct Shown {
    /// Its files.
    pub(super) files: Vec<(EntryPath, FileNumber)>,
    /// Directories with nothing in them.
    pub(super) empty: Vec<EntryPath>,
}

impl<'a> Composed<'a> {
    /// Nothing yet; remarks go to `notes`, and no more memory than this is taken, in bytes.
    pub(super) fn new(system: &dyn System, memory: u64, notes: &'a mut Notes) -> Composed<'a> {
        Composed {
            nodes: vec![Node {
                what: What::Directory(BTreeMap::new()),
                parent: ROOT,
                layer: usize::MAX,
            }],
            overlays: system.overlays(),
            forgiving: system.leaves_out_dead_links(),
            memory,
            steps: Cell::new(MOST_STEPS),
            notes,
        }
    }

    /// Adds a file that the manifest names.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when another layer has that path, too.
    pub(super) fn add_file(
        &mut self,
        path: &EntryPath,
        layer: usize,
        file: FileNumber,
    ) -> Result<()> {
        self.add_named(path, layer, What::File(file))
    }

    /// Adds a link that is the only member of a layer which the manifest names.
    ///
    /// # Errors
    /// As [`add_file`](Composed::add_file).
    pub(super) fn add_link(
        &mut self,
        path: &EntryPath,
        layer: usize,
        target: &LinkTarget,
    ) -> Result<()> {
        let link = Link {
            target: target.path.as_ref().into(),
            from_root: !target.symbolic,
            named: !self.forgiving,
        };
        self.add_named(path, layer, What::Link(link))
    }

    /// Adds a directory that is the only member of a layer which the manifest names.
    ///
    /// # Errors
    /// As [`add_file`](Composed::add_file).
    pub(super) fn add_directory(&mut self, path: &EntryPath, layer: usize) -> Result<()> {
        self.add_named(path, layer, What::Directory(BTreeMap::new()))
    }

    fn add_named(&mut self, path: &EntryPath, layer: usize, what: What) -> Result<()> {
        let names: Vec<&str> = path.components().collect();
        let placed = self.add(&names, layer, what)?;
        placed.map_err(|why| Error::malformed(format!("path \"{path}\""), why))
    }

    /// Adds the members of a layer. Its files have the numbers from `first` on.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when another layer has one of their paths,
    /// and layers do not lie over each other; or when there are too many.
    pub(super) fn add_layer(
        &mut self,
        layer: &ArchiveLayer,
        members: &[Listed],
        first: FileNumber,
    ) -> Result<()> {
        let number = layer.part.number;
        let place = Placing::of(&layer.names, members);
        for member in members {
            let name = member_name(&member.path);
            if self.overlays && name.is_some_and(|name| name.starts_with(WHITEOUT)) {
                self.white_out(&member.path, number)?;
                continue;
            }
            let added = match place.names(&member.path) {
                Ok(names) if names.is_empty() => continue,
                Ok(names) => match self.what(&member.kind, first, &place)? {
                    Ok(what) => self.add(&names, number, what)?,
                    Err(why) => Err(why),
                },
                Err(why) => Err(why),
            };
            if let Err(why) = added {
                let path = printable_bytes(&member.path);
                let subject = layer.subject();
                self.notes
                    .push(format_args!("{path} of {subject} {why}; it is left out"));
            }
        }
        Ok(())
    }

    /// What a member is; the inner error says why it cannot be served.
    fn what(
        &self,
        kind: &ListedKind,
        first: FileNumber,
        place: &Placing<'_>,
    ) -> Result<Result<What, Why>> {
        Ok(match kind {
            ListedKind::File(number) => Ok(What::File(first.saturating_add(*number))),
            ListedKind::Directory => Ok(What::Directory(BTreeMap::new())),
            ListedKind::Symlink(target) => target_of(target).map(|target| {
                What::Link(Link {
                    target: target.into(),
                    from_root: false,
                    named: false,
                })
            }),
            ListedKind::HardLink(target) => match place.names(target) {
                Ok(names) => self.linked(&names.join("/"))?,
                Err(why) => Err(why),
            },
            ListedKind::Special => Err("is a device or a pipe".into()),
        })
    }

    /// What stands at a path now, under another name: whatever becomes of that.
    fn linked(&self, path: &str) -> Result<Result<What, Why>> {
        let Ok(node) = self.walk(ROOT, path, false)? else {
            let why = format!("is a link to \"{}\", which is not there", shown(path));
            return Ok(Err(why));
        };
        let what = self.nodes.get(node as usize).map(|node| &node.what);
        Ok(match what {
            Some(What::File(number)) => Ok(What::File(*number)),
            Some(What::Link(link)) => Ok(What::Link(link.clone())),
            _ => Err("is a hard link to a directory".into()),
        })
    }

    /// Puts something at a path. The inner error says why it cannot stand there.
    fn add(&mut self, names: &[&str], layer: usize, what: What) -> Result<Result<(), Why>> {
        let Some((last, above)) = names.split_last() else {
            return Ok(Ok(()));
        };
        let mut at = ROOT;
        for (depth, name) in above.iter().enumerate() {
            at = match self.child(at, name) {
                Some((child, What::Directory(_))) => child,
                Some((_, What::Link(link))) => {
                    let target = link.target.clone();
                    match self.walk(link.start(at), &target, true)? {
                        Ok(end) if self.is_directory(end) => end,
                        _ => return Ok(Err("is below a link that leads to no directory".into())),
                    }
                }
                Some((child, What::File(_))) => {
                    let path = names.get(..=depth).unwrap_or_default();
                    self.check_replaced(child, layer, path)?;
                    self.put(at, name, layer, What::Directory(BTreeMap::new()))?
                }
                None => self.put(at, name, layer, What::Directory(BTreeMap::new()))?,
            };
        }
        match (self.child(at, last), &what) {
            (Some((child, What::Directory(_))), What::Directory(_)) => {
                if let Some(node) = self.nodes.get_mut(child as usize)
                    && self.overlays
                {
                    // It is of this layer, too: a whiteout in it does not take it away.
                    node.layer = layer;
                }
                return Ok(Ok(()));
            }
            (Some((child, _)), _) => self.check_replaced(child, layer, names)?,
            (None, _) => {}
        }
        self.put(at, last, layer, what)?;
        Ok(Ok(()))
    }

    /// A member of a layer stands in place of what was there: only of the same layer, unless layers lie
    /// over each other.
    fn check_replaced(&self, node: u32, layer: usize, names: &[&str]) -> Result<()> {
        let before = self.nodes.get(node as usize).map(|node| node.layer);
        if self.overlays || before == Some(layer) {
            return Ok(());
        }
        let before = before.unwrap_or_default();
        let path = shown(&names.join("/"));
        let rule = format!("is the path of two layers, {before} and {layer}");
        Err(Error::malformed(format!("path \"{path}\""), rule))
    }

    fn put(&mut self, parent: u32, name: &str, layer: usize, what: What) -> Result<u32> {
        let number = match u32::try_from(self.nodes.len()) {
            Ok(number) if self.nodes.len() <= limits::MAX_NODES => number,
            _ => return Err(too_many()),
        };
        let bytes = NODE_BYTES.saturating_add(name.len() as u64);
        self.memory = self.memory.checked_sub(bytes).ok_or_else(too_large)?;
        if let Some(What::Directory(children)) = self.what_is(parent) {
            children.insert(name.into(), number);
        }
        self.nodes.push(Node {
            what,
            parent,
            layer,
        });
        Ok(number)
    }

    fn what_is(&mut self, node: u32) -> Option<&mut What> {
        let node = self.nodes.get_mut(node as usize)?;
        Some(&mut node.what)
    }

    fn child(&self, directory: u32, name: &str) -> Option<(u32, &What)> {
        let What::Directory(children) = &self.nodes.get(directory as usize)?.what else {
            return None;
        };
        let child = *children.get(name)?;
        Some((child, &self.nodes.get(child as usize)?.what))
    }

    fn is_directory(&self, node: u32) -> bool {
        let node = self.nodes.get(node as usize);
        node.is_some_and(|node| matches!(node.what, What::Directory(_)))
    }

    /// Takes away what a whiteout names, as far as it is below its layer. It is looked for where the path
    /// leads by now: members come in their order.
    fn white_out(&mut self, path: &[u8], layer: usize) -> Result<()> {
        let Some(name) = member_name(path) else {
            return Ok(());
        };
        // What is hidden may have a longer name than a whiteout that has to be a name itself.
        let above = path.get(..path.len().saturating_sub(name.len()));
        let above = names_of(above.unwrap_or_default());
        let (Some(hidden), Ok(above)) = (name.strip_prefix(WHITEOUT), above) else {
            return Ok(());
        };
        let Ok(directory) = self.walk(ROOT, &above.join("/"), true)? else {
            return Ok(());
        };
        let hidden = match hidden {
            OPAQUE => self.children(directory),
            name => match self.child(directory, name) {
                Some((child, _)) => vec![(name.into(), child)],
                None => Vec::new(),
            },
        };
        for (name, child) in hidden {
            if self.hide(child, layer)
                && let Some(What::Directory(children)) = self.what_is(directory)
            {
                children.remove(&name);
            }
        }
        self.check_steps()
    }

    /// Takes away what is below a layer; false when something of the layer is left.
    fn hide(&mut self, node: u32, layer: usize) -> bool {
        let own = self.nodes.get(node as usize).map(|node| node.layer) == Some(layer);
        let mut left = own;
        self.step();
        for (name, child) in self.children(node) {
            if !self.hide(child, layer) {
                left = true;
            } else if let Some(What::Directory(children)) = self.what_is(node) {
                children.remove(&name);
            }
        }
        !left
    }

    fn children(&self, node: u32) -> Vec<(Box<str>, u32)> {
        match self.nodes.get(node as usize).map(|node| &node.what) {
            Some(What::Directory(children)) if self.steps.get() > 0 => {
                let pairs = children.iter().map(|(name, child)| (name.clone(), *child));
                pairs.collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is at a path that counts from a directory. Links on the way are followed, and one at its end,
    /// if that is wanted. The inner error says why it leads nowhere.
    ///
    /// # Errors
    /// When following all links takes more steps than any model has need of.
    fn walk(&self, start: u32, path: &str, follow_last: bool) -> Result<Result<u32, Why>> {
        let end = self.walk_on(start, path, follow_last);
        self.check_steps().map(|()| end)
    }

    fn step(&self) {
        self.steps.set(self.steps.get().saturating_sub(1));
    }

    fn check_steps(&self) -> Result<()> {
        match self.steps.get() {
            0 => {
                let rule = "its links and whiteouts take too many steps to follow";
                Err(Error::malformed("model", rule))
            }
            _ => Ok(()),
        }
    }

    fn walk_on(&self, start: u32, path: &str, follow_last: bool) -> Result<u32, Why> {
        let mut at = start;
        let mut rest: Vec<&str> = path.rsplit('/').collect();
        if path.starts_with('/') {
            at = ROOT;
        }
        let mut links = 0;
        while let Some(name) = rest.pop() {
            self.step();
            if self.steps.get() == 0 {
                return Err("too far away".into());
            }
            if !self.is_directory(at) {
                return Err("which leads through a file".into());
            }
            if ["", "."].contains(&name) {
                continue;
            }
            let parent = self.nodes.get(at as usize).map(|node| node.parent);
            if name == ".." {
                if at == ROOT && !self.overlays {
                    return Err("outside of the model".into());
                }
                at = parent.unwrap_or(ROOT);
                continue;
            }
            let (child, what) = self.child(at, name).ok_or("which is not there")?;
            match what {
                What::Link(link) if follow_last || !rest.is_empty() => {
                    links += 1;
                    if links > limits::MAX_LINKS {
                        return Err("which leads in a circle, or over too many others".into());
                    }
                    if link.target.starts_with('/') && !self.overlays && !link.from_root {
                        return Err("an absolute path".into());
                    }
                    at = link.start(at);
                    rest.extend(link.target.rsplit('/'));
                }
                _ => at = child,
            }
        }
        Ok(at)
    }

    /// The directory at a path, if there is one with something in it.
    pub(super) fn directory(&self, path: &str) -> Option<u32> {
        let node = self.walk(ROOT, path, true).ok()?.ok()?;
        match &self.nodes.get(node as usize)?.what {
            What::Directory(children) if !children.is_empty() => Some(node),
            _ => None,
        }
    }

    /// All that is below a directory; the root's, if none is given.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when there is too much, or a link that the
    /// manifest names leads nowhere.
    pub(super) fn shown(self, directory: Option<u32>) -> Result<Shown> {
        let directory = directory.unwrap_or(ROOT);
        let mut walk = Walk {
            shown: Shown::default(),
            path: String::new(),
            open: vec![directory],
            seen: 0,
            bytes: 0,
            left_out: Vec::new(),
        };
        self.show(directory, &mut walk)?;
        for (path, why) in walk.left_out {
            self.notes
                .push(format_args!("{} {why}; it is left out", shown(&path)));
        }
        Ok(walk.shown)
    }

    fn show(&self, directory: u32, walk: &mut Walk) -> Result<()> {
        let Some(What::Directory(children)) = self.nodes.get(directory as usize).map(|n| &n.what)
        else {
            return Ok(());
        };
        let length = walk.path.len();
        for (name, child) in children {
            if length > 0 {
                walk.path.push('/');
            }
            walk.path.push_str(name);
            self.show_one(directory, *child, walk)?;
            walk.path.truncate(length);
        }
        Ok(())
    }

    fn show_one(&self, directory: u32, node: u32, walk: &mut Walk) -> Result<()> {
        walk.count()?;
        let path = match EntryPath::checked_as_clause(&walk.path) {
            Ok(path) => path,
            Err(rule) => {
                walk.leave_out(rule);
                return Ok(());
            }
        };
        let (node, link) = match self.end_of(directory, node)? {
            Ok(end) => end,
            Err((link, why)) if link.named => {
                let rule = format!("is a link to \"{}\", {why}", shown(&link.target));
                return Err(Error::malformed(format!("path \"{path}\""), rule));
            }
            Err((link, why)) => {
                walk.leave_out(format!("is a link to \"{}\", {why}", shown(&link.target)));
                return Ok(());
            }
        };
        match self.nodes.get(node as usize).map(|node| &node.what) {
            Some(What::File(file)) => walk.shown.files.push((path, *file)),
            Some(What::Directory(_)) if walk.open.contains(&node) => {
                let target = link.map_or("", |link| &*link.target);
                walk.leave_out(format!(
                    "is a link to \"{}\", which it is in",
                    shown(target)
                ));
            }
            Some(What::Directory(_)) => {
                let before = (walk.shown.files.len(), walk.shown.empty.len());
                walk.open.push(node);
                self.show(node, walk)?;
                walk.open.pop();
                if before == (walk.shown.files.len(), walk.shown.empty.len()) {
                    walk.shown.empty.push(path);
                }
            }
            Some(What::Link(_)) | None => {}
        }
        Ok(())
    }

    /// Where a node leads that may be a link, and the link.
    fn end_of(&self, directory: u32, node: u32) -> Result<End<'_>> {
        let Some(What::Link(link)) = self.nodes.get(node as usize).map(|node| &node.what) else {
            return Ok(Ok((node, None)));
        };
        let absolute = link.target.starts_with('/') && !self.overlays && !link.from_root;
        let end = match absolute {
            true => Err("an absolute path".into()),
            false => self.walk(link.start(directory), &link.target, true)?,
        };
        Ok(match end {
            Ok(end) => Ok((end, Some(link))),
            Err(why) => Err((link, why)),
        })
    }
}

impl Link {
    /// The directory from which it counts.
    fn start(&self, directory: u32) -> u32 {
        match self.from_root {
            true => ROOT,
            false => directory,
        }
    }
}

/// Goes over what is shown.
struct Walk {
    shown: Shown,
    path: String,
    /// The directories that lead to the path.
    open: Vec<u32>,
    seen: usize,
    bytes: usize,
    left_out: Vec<(String, Why)>,
}

impl Walk {
    fn count(&mut self) -> Result<()> {
        self.seen += 1;
        self.bytes += self.path.len();
        match self.seen > limits::MAX_NODES || self.bytes > limits::MAX_LISTING_BYTES {
            true => Err(too_many()),
            false => Ok(()),
        }
    }

    fn leave_out(&mut self, why: Why) {
        // No more than there are remarks, which also count the rest.
        if self.left_out.len() <= 2 * limits::MAX_NOTES {
            self.left_out.push((self.path.clone(), why));
        }
    }
}

fn too_many() -> Error {
    let limit = limits::MAX_NODES;
    Error::malformed(
        "model",
        format!("has more than {limit} files and directories, or names that are too long"),
    )
}

fn too_large() -> Error {
    Error::environment(
        "model",
        "its files and directories take more memory than there is; a larger --cache-size allows more",
    )
}

/// What the names of whiteouts begin with,
const WHITEOUT: &str = ".wh.";
/// and what follows where all that is below a directory is hidden.
const OPAQUE: &str = ".wh..opq";

/// The names that lead to a member. A leading `./` or `/` and the last `/` of a directory are no names.
fn names_of(path: &[u8]) -> Result<Vec<&str>, Why> {
    let path = utf8(path)?;
    let names = path.split('/').filter(|name| !["", "."].contains(name));
    let names: Vec<&str> = names.collect();
    for name in &names {
        if *name == ".." {
            return Err("has a \"..\" in its path".into());
        }
        // A name by itself: what holds for paths is asked where one is shown.
        EntryPath::checked_as_clause(name)?;
    }
    Ok(names)
}

/// The last of the names.
fn member_name(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?;
    path.trim_end_matches('/').rsplit('/').next()
}

/// Where a link leads, as far as there may be such a path.
fn target_of(bytes: &[u8]) -> Result<&str, Why> {
    match bytes.len() {
        0..=limits::MAX_PATH_BYTES => utf8(bytes),
        length => Err(format!("is a link to a path of {length} bytes")),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Why> {
    std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
}

/// Where the members of a layer stand in the model.
enum Placing<'a> {
    /// Where their names say.
    Root,
    /// Below a directory.
    Below(&'a EntryPath),
    /// The one file there is has this path.
    At(&'a EntryPath),
}

impl<'a> Placing<'a> {
    fn of(names: &'a Names, members: &[Listed]) -> Placing<'a> {
        let (path, below) = match names {
            Names::Root => return Placing::Root,
            Names::File(path) => (path, false),
            Names::Below(path) => (path, true),
        };
        let lies_there = |member: &Listed| {
            let names = names_of(&member.path).unwrap_or_default();
            let directory = matches!(member.kind, ListedKind::Directory);
            let mut pairs = names.iter().zip(path.components());
            // A directory may be one on the way there.
            pairs.all(|(a, b)| *a == b) && (directory || names.len() >= path.components().count())
        };
        let mut others = members
            .iter()
            .filter(|member| !matches!(member.kind, ListedKind::Directory));
        let only = others.next().filter(|_| others.next().is_none());
        let is_it = only.is_some_and(|only| member_name(&only.path) == Some(path.file_name()));
        let is_path = |member: &Listed| {
            let names = names_of(&member.path).unwrap_or_default();
            names.into_iter().eq(path.components())
        };
        let mut directories = members
            .iter()
            .filter(|member| matches!(member.kind, ListedKind::Directory));
        let is_directory = directories.any(is_path);
        match below {
            true if members.iter().all(lies_there) => Placing::Root,
            // The path is that of a directory, and what is in it may be called as it is.
            _ if is_it && !is_directory => Placing::At(path),
            true => Placing::Below(path),
            false => Placing::Root,
        }
    }

    /// The names that lead to a member; none for what is no more than on the way.
    fn names<'m>(&'m self, path: &'m [u8]) -> Result<Vec<&'m str>, Why> {
        let own = names_of(path)?;
        Ok(match self {
            Placing::Root => own,
            Placing::Below(above) => above.components().chain(own).collect(),
            Placing::At(path) => match own.last() == Some(&path.file_name()) {
                true => path.components().collect(),
                false => Vec::new(),
            },
        })
    }
}

#[cfg(test)]
mod tests;
