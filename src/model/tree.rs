//! The inode table: built once from the paths of the files, never changed.

use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

use super::{Attr, DirEntry, Inode, NodeKind};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::limits;

/// Directories and files by inode number.
#[derive(Debug)]
pub(super) struct Tree {
    /// Node `n` has inode `n + 1`. Directories come first, the root at 0; then the files, in the
    /// order given, which is that of their paths.
    nodes: Vec<Node>,
    /// How many of the nodes are directories.
    directories: usize,
    /// The names of all nodes, one after the other.
    names: String,
    /// The nodes in each directory, one directory after the other, sorted by name bytes.
    children: Vec<u32>,
}

/// Small, because a model may have a million of them.
#[derive(Debug)]
struct Node {
    parent: u32,
    /// Where the name begins.
    name: u32,
    name_bytes: u8,
    /// 1, and for directories 2 (itself and its `.`) and the `..` of each sub-directory.
    links: u32,
    /// Of directories: where its children begin, and how many there are.
    children: (u32, u32),
}

impl Tree {
    /// Builds the tree of `paths`, which are sorted by their bytes, file `n` is the `n`-th of them; and of
    /// directories that none of them is in, sorted as if a `/` followed each.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the path, when a path is
    /// there twice, or is a file and a directory; or when there are too many.
    pub(super) fn build<'a>(
        paths: impl Iterator<Item = &'a EntryPath> + Clone,
        empty: &'a [EntryPath],
    ) -> Result<Tree> {
        let mut tree = Tree {
            nodes: Vec::new(),
            directories: 0,
            names: String::new(),
            children: Vec::new(),
        };
        tree.add(0, "", 2)?;
        let mut parents = Vec::with_capacity(paths.size_hint().0);
        let mut above = Vec::new();
        let mut empty = empty.iter().peekable();
        for path in paths.clone() {
            while let Some(directory) = empty.next_if(|directory| is_before(directory, path)) {
                tree.lead(&mut above, directory.as_str())?;
            }
            let (directory, _) = split(path.as_str());
            parents.push(tree.lead(&mut above, directory)?);
        }
        for directory in empty {
            tree.lead(&mut above, directory.as_str())?;
        }
        tree.directories = tree.nodes.len();
        for (path, parent) in paths.clone().zip(parents) {
            tree.add(parent, path.file_name(), 1)?;
        }
        tree.link_children();
        match tree.twice() {
            None => Ok(tree),
            Some((first, second)) => Err(tree.conflict(first, second)),
        }
    }

    /// The number of a directory, which is added where it is new. All that is below a directory comes
    /// together: the directories that lead to one are those of the one before, which are `above`, as far
    /// as the two agree, and new ones.
    fn lead<'a>(&mut self, above: &mut Vec<(&'a str, u32)>, directory: &'a str) -> Result<u32> {
        let names = directory.split('/').filter(|name| !name.is_empty());
        let mut depth = 0;
        let mut parent = 0;
        for name in names {
            match above.get(depth) {
                Some((known, node)) if *known == name => parent = *node,
                _ => {
                    above.truncate(depth);
                    parent = self.add(parent, name, 2)?;
                    above.push((name, parent));
                }
            }
            depth += 1;
        }
        above.truncate(depth);
        Ok(parent)
    }

    /// Memory that it takes, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let nodes = self.nodes.capacity() * size_of::<Node>();
        let children = self.children.capacity() * size_of::<u32>();
        (nodes + children + self.names.capacity()) as u64
    }

    fn add(&mut self, parent: u32, name: &str, links: u32) -> Result<u32> {
        let number = node_number(self.nodes.len())?;
        let (Ok(at), Ok(name_bytes)) = (u32::try_from(self.names.len()), name.len().try_into())
        else {
            return Err(Error::malformed("model", "has too many names"));
        };
        self.names.push_str(name);
        self.nodes.push(Node {
            parent,
            name: at,
            name_bytes,
            links,
            children: (0, 0),
        });
        Ok(number)
    }

    /// Finds the children of every directory, and counts sub-directories.
    fn link_children(&mut self) {
        for number in 1..self.nodes.len() {
            let parent = self.nodes[number].parent as usize;
            self.nodes[parent].children.1 += 1;
            self.nodes[parent].links += u32::from(number < self.directories);
        }
        let mut begin = 0;
        for directory in &mut self.nodes[..self.directories] {
            let count = directory.children.1;
            directory.children = (begin, 0);
            begin += count;
        }
        self.children = vec![0; begin as usize];
        for number in 1..self.nodes.len() {
            let parent = self.nodes[number].parent as usize;
            let parent = &mut self.nodes[parent].children;
            self.children[(parent.0 + parent.1) as usize] = number as u32;
            parent.1 += 1;
        }
        let mut children = std::mem::take(&mut self.children);
        for directory in &self.nodes[..self.directories] {
            children[range(directory)].sort_unstable_by_key(|child| self.name(*child));
        }
        self.children = children;
    }

    /// Two nodes of the same name in one directory.
    fn twice(&self) -> Option<(u32, u32)> {
        let directories = self.nodes.get(..self.directories).unwrap_or_default();
        directories.iter().find_map(|directory| {
            let pairs = self.children_of(directory).windows(2);
            let mut pairs = pairs.filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
            pairs.find(|(a, b)| self.name(*a) == self.name(*b))
        })
    }

    /// What to say of them.
    fn conflict(&self, first: u32, second: u32) -> Error {
        let mut names = vec![self.name(first)];
        let mut number = first;
        while let Some(node) = self.nodes.get(number as usize)
            && node.parent != 0
        {
            number = node.parent;
            names.push(self.name(number));
        }
        names.reverse();
        let path = names.join("/");
        let rule = match (first.min(second) as usize) < self.directories {
            true => format!("is a file, but \"{path}/…\" is there too"),
            false => "is the path of two layers".into(),
        };
        Error::malformed(format!("path \"{path}\""), rule)
    }

    /// The inode of file `number`.
    pub(super) fn file_inode(&self, number: usize) -> Inode {
        Inode((self.directories + number + 1) as u64)
    }

    /// The number of the file that an inode is; `None` for directories and unknown inodes.
    pub(super) fn file_number(&self, inode: Inode) -> Option<usize> {
        self.index(inode)?.checked_sub(self.directories)
    }

    /// The number of a directory, the root's being 0; `None` for files and unknown inodes.
    pub(super) fn directory_number(&self, inode: Inode) -> Option<usize> {
        self.index(inode)
            .filter(|number| *number < self.directories)
    }

    /// The number of the newest file below each directory, by the directory's number; `time` is that of
    /// a file.
    pub(super) fn newest<T: Ord>(&self, time: impl Fn(usize) -> T) -> Box<[u32]> {
        let (directories, files) = self.nodes.split_at(self.directories);
        let mut newest: Vec<Option<u32>> = vec![None; directories.len()];
        let mut raise = |directory: u32, file: Option<u32>| {
            let slot = newest.get_mut(directory as usize)?;
            *slot = [*slot, file]
                .into_iter()
                .flatten()
                .max_by_key(|file| time(*file as usize));
            *slot
        };
        for (file, number) in files.iter().zip(0..) {
            raise(file.parent, Some(number));
        }
        // A directory's number is larger than that of the one it is in.
        for (number, directory) in directories.iter().enumerate().skip(1).rev() {
            let below = raise(number as u32, None);
            raise(directory.parent, below);
        }
        let none = u32::MAX;
        newest
            .into_iter()
            .map(|file| file.unwrap_or(none))
            .collect()
    }

    /// Number of inodes.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.index(inode).is_some_and(|n| n < self.directories)
    }

    /// The inode of a name in a directory; `.` and `..` are names of every directory.
    pub(super) fn lookup(&self, parent: Inode, name: &str) -> Option<Inode> {
        let directory = self.nodes.get(self.index(parent)?)?;
        match name {
            "." if self.is_directory(parent) => Some(parent),
            ".." if self.is_directory(parent) => Some(Inode(u64::from(directory.parent) + 1)),
            _ => {
                let children = self.children_of(directory);
                let at = children.binary_search_by(|child| self.name(*child).cmp(name));
                let child = children.get(at.ok()?)?;
                Some(Inode(u64::from(*child) + 1))
            }
        }
    }

    /// Link count of an inode; 0 when it is unknown.
    pub(super) fn links(&self, inode: Inode) -> u32 {
        self.index(inode)
            .and_then(|n| self.nodes.get(n))
            .map_or(0, |node| node.links)
    }

    /// Entries of a directory from `offset`: `.`, `..`, then the names in order.
    pub(super) fn readdir(
        &self,
        inode: Inode,
        offset: u64,
    ) -> Option<impl Iterator<Item = DirEntry<'_>>> {
        if !self.is_directory(inode) {
            return None;
        }
        let directory = self.nodes.get(self.index(inode)?)?;
        let parent = Inode(u64::from(directory.parent) + 1);
        let dots = [(inode, "."), (parent, "..")];
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let children = self.children_of(directory);
        let children = children
            .get(skip.saturating_sub(2).min(children.len())..)
            .unwrap_or_default();
        let named = children
            .iter()
            .map(|n| (Inode(u64::from(*n) + 1), self.name(*n)));
        Some(dots.into_iter().skip(skip).chain(named).zip(1..).map(
            move |((inode, name), count): (_, u64)| DirEntry {
                inode,
                kind: if self.is_directory(inode) {
                    NodeKind::Directory
                } else {
                    NodeKind::File
                },
                name,
                next_offset: offset.saturating_add(count),
            },
        ))
    }

    fn index(&self, inode: Inode) -> Option<usize> {
        let index = usize::try_from(inode.0).ok()?.checked_sub(1)?;
        (index < self.nodes.len()).then_some(index)
    }

    fn children_of(&self, directory: &Node) -> &[u32] {
        self.children.get(range(directory)).unwrap_or_default()
    }

    fn name(&self, number: u32) -> &str {
        let Some(node) = self.nodes.get(number as usize) else {
            return "";
        };
        let begin = node.name as usize;
        let name = self.names.get(begin..begin + usize::from(node.name_bytes));
        name.unwrap_or_default()
    }
}

/// Where the children of a directory are listed.
fn range(directory: &Node) -> Range<usize> {
    let (begin, count) = directory.children;
    begin as usize..(begin + count) as usize
}

/// Attributes of a directory.
pub(super) fn directory_attr(inode: Inode, links: u32, mtime: Duration) -> Attr {
    Attr {
        inode,
        kind: NodeKind::Directory,
        size: 0,
        mode: 0o555,
        mtime,
        links,
    }
}

/// Paths in the order of their bytes.
pub(super) fn by_path(a: &EntryPath, b: &EntryPath) -> Ordering {
    a.as_str().as_bytes().cmp(b.as_str().as_bytes())
}

/// Empty directories in the order in which a tree is built of them.
pub(super) fn sort_empty(directories: &mut [EntryPath]) {
    let key = |path: &EntryPath| format!("{}/", path.as_str());
    directories.sort_by_cached_key(key);
}

/// True for a directory all of which comes before a file.
fn is_before(directory: &EntryPath, file: &EntryPath) -> bool {
    let directory = directory.as_str().bytes().chain([b'/']);
    directory.lt(file.as_str().bytes())
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn node_number(count: usize) -> Result<u32> {
    match u32::try_from(count) {
        Ok(number) if count < limits::MAX_NODES => Ok(number),
        _ => Err(Error::malformed(
            "model",
            format!("has more than {} files and directories", limits::MAX_NODES),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tree(paths: &[&str]) -> Result<Tree> {
        let mut paths: Vec<EntryPath> = paths.iter().map(|p| EntryPath::new(p).unwrap()).collect();
        paths.sort_by(by_path);
        Tree::build(paths.iter(), &[])
    }

    fn names(tree: &Tree, inode: Inode, offset: u64) -> Vec<(String, u64)> {
        tree.readdir(inode, offset)
            .unwrap()
            .map(|e| (e.name.to_string(), e.next_offset))
            .collect()
    }

    #[test]
    fn lookup_and_readdir_agree() {
        let tree = tree(&["a/b/x", "a/y", "a.txt", "z"]).unwrap();
        let a = tree.lookup(Inode::ROOT, "a").unwrap();
        let b = tree.lookup(a, "b").unwrap();
        assert_eq!(tree.lookup(b, ".."), Some(a));
        assert_eq!(tree.lookup(a, ".."), Some(Inode::ROOT));
        assert_eq!(tree.lookup(Inode::ROOT, ".."), Some(Inode::ROOT));
        assert_eq!(tree.lookup(b, "y"), None);
        let x = tree.lookup(b, "x").unwrap();
        assert_eq!(tree.lookup(x, "."), None, "a file has no names");
        assert_eq!(tree.file_number(x), Some(1), "a.txt, a/b/x, a/y, z");
        assert_eq!(tree.file_inode(1), x);
        let all = names(&tree, Inode::ROOT, 0);
        assert_eq!(
            all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            [".", "..", "a", "a.txt", "z"]
        );
        for (n, (_, next)) in all.iter().enumerate() {
            assert_eq!(names(&tree, Inode::ROOT, *next), all[n + 1..]);
        }
        assert_eq!(names(&tree, Inode::ROOT, u64::MAX), []);
        assert_eq!(tree.links(Inode::ROOT), 3);
        assert!(tree.readdir(x, 0).is_none());
    }

    #[test]
    fn directories_are_as_new_as_what_is_below_them() {
        let tree = tree(&["a/b/x", "a/c/y", "a/z", "d/e/f/g"]).unwrap();
        let times = [5, 7, 6, 3];
        let newest = tree.newest(|file| times[file]);
        let time = |path: &str| {
            let names = path.split('/').filter(|name| !name.is_empty());
            let inode = names.fold(Inode::ROOT, |at, name| tree.lookup(at, name).unwrap());
            times[newest[tree.directory_number(inode).unwrap()] as usize]
        };
        for (path, expected) in [
            ("", 7),
            ("a", 7),
            ("a/b", 5),
            ("a/c", 7),
            ("d", 3),
            ("d/e", 3),
            ("d/e/f", 3),
        ] {
            assert_eq!(time(path), expected, "{path}");
        }
        assert_eq!(tree.directory_number(tree.file_inode(0)), None);
    }

    #[test]
    fn empty_directories_are_there() {
        let paths = ["a-b", "a/x", "b"].map(|path| EntryPath::new(path).unwrap());
        let mut empty = ["b0/c", "a/e/f", "a-", "a0"].map(|path| EntryPath::new(path).unwrap());
        sort_empty(&mut empty);
        let tree = Tree::build(paths.iter(), &empty).unwrap();
        let names = |inode| -> Vec<String> {
            let entries = tree.readdir(inode, 2).unwrap();
            entries.map(|entry| entry.name.to_string()).collect()
        };
        assert_eq!(names(Inode::ROOT), ["a", "a-", "a-b", "a0", "b", "b0"]);
        let a = tree.lookup(Inode::ROOT, "a").unwrap();
        assert_eq!(names(a), ["e", "x"]);
        let e = tree.lookup(a, "e").unwrap();
        assert_eq!(names(e), ["f"]);
        assert_eq!(tree.file_number(tree.lookup(a, "x").unwrap()), Some(1));
    }

    #[test]
    fn n2_unknown_inodes_are_nothing() {
        let tree = tree(&["a"]).unwrap();
        for inode in [Inode(0), Inode(3), Inode(u64::MAX)] {
            assert!(tree.readdir(inode, 0).is_none());
            assert_eq!(tree.lookup(inode, "a"), None);
            assert_eq!(tree.file_number(inode), None);
        }
    }

    #[test]
    fn p4_refuses_duplicates_and_files_that_are_directories() {
        let twice = tree(&["a/b", "c", "a/b"]).unwrap_err().to_string();
        assert!(twice.contains("a/b"), "{twice}");
        let both = tree(&["a", "a-b", "a/b"]).unwrap_err().to_string();
        assert!(both.contains("\"a\"") && both.contains("a/"), "{both}");
    }

    #[test]
    fn p5_names_that_differ_in_case_or_unicode_form_are_different_names() {
        let tree = tree(&["a", "A", "\u{e9}", "e\u{301}"]).unwrap();
        assert_eq!(names(&tree, Inode::ROOT, 2).len(), 4);
    }
}
