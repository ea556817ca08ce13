//! The inode table: built once from the paths of the files, never changed.

use std::cmp::Ordering;
use std::collections::HashMap;

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
}

#[derive(Debug)]
struct Node {
    parent: u32,
    name: Box<str>,
    /// Of directories, sorted by name bytes.
    children: Vec<u32>,
    /// 1, and for directories 2 (itself and its `.`) and the `..` of each sub-directory.
    links: u32,
}

impl Node {
    fn new(parent: u32, name: &str, links: u32) -> Node {
        Node {
            parent,
            name: name.into(),
            children: Vec::new(),
            links,
        }
    }
}

impl Tree {
    /// Builds the tree of `paths`, which are sorted by their bytes; file `n` is the `n`-th of them.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming both paths, when a path is
    /// there twice, or is a file and a directory; or when there are too many.
    pub(super) fn build<'a>(paths: impl Iterator<Item = &'a EntryPath> + Clone) -> Result<Tree> {
        let mut nodes = vec![Node::new(0, "", 2)];
        let mut directories: HashMap<&str, u32> = HashMap::from([("", 0)]);
        for path in paths.clone() {
            for (end, _) in path.as_str().match_indices('/') {
                let directory = &path.as_str()[..end];
                if directories.contains_key(directory) {
                    continue;
                }
                let (parent, name) = split(directory);
                let parent = directories.get(parent).copied().unwrap_or(0);
                let number = node_number(nodes.len())?;
                nodes.push(Node::new(parent, name, 2));
                directories.insert(directory, number);
            }
        }
        let directory_count = nodes.len();
        let mut previous: Option<&EntryPath> = None;
        for path in paths {
            if previous == Some(path) {
                return Err(conflict(path.as_str(), "is the path of two layers"));
            }
            previous = Some(path);
            if directories.contains_key(path.as_str()) {
                return Err(conflict(
                    path.as_str(),
                    format!("is a file, but \"{}/…\" is there too", path.as_str()),
                ));
            }
            let (parent, name) = split(path.as_str());
            let parent = directories.get(parent).copied().unwrap_or(0);
            node_number(nodes.len())?;
            nodes.push(Node::new(parent, name, 1));
        }
        for number in 1..nodes.len() {
            let parent = nodes[number].parent as usize;
            nodes[parent].children.push(number as u32);
            nodes[parent].links += u32::from(number < directory_count);
        }
        for directory in 0..directory_count {
            let mut children = std::mem::take(&mut nodes[directory].children);
            children.sort_unstable_by(|a, b| nodes[*a as usize].name.cmp(&nodes[*b as usize].name));
            nodes[directory].children = children;
        }
        Ok(Tree {
            nodes,
            directories: directory_count,
        })
    }

    /// The inode of file `number`.
    pub(super) fn file_inode(&self, number: usize) -> Inode {
        Inode((self.directories + number + 1) as u64)
    }

    /// The number of the file that an inode is; `None` for directories and unknown inodes.
    pub(super) fn file_number(&self, inode: Inode) -> Option<usize> {
        self.index(inode)?.checked_sub(self.directories)
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
            _ => directory
                .children
                .binary_search_by(|child| self.name(*child).cmp(name))
                .ok()
                .and_then(|at| directory.children.get(at))
                .map(|child| Inode(u64::from(*child) + 1)),
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
        let children = directory
            .children
            .get(skip.saturating_sub(2).min(directory.children.len())..)
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

    fn name(&self, number: u32) -> &str {
        self.nodes
            .get(number as usize)
            .map_or("", |node| &node.name)
    }
}

/// Attributes of a directory.
pub(super) fn directory_attr(inode: Inode, links: u32) -> Attr {
    Attr {
        inode,
        kind: NodeKind::Directory,
        size: 0,
        mode: 0o555,
        mtime: 0,
        links,
    }
}

/// Paths in the order of their bytes.
pub(super) fn by_path(a: &EntryPath, b: &EntryPath) -> Ordering {
    a.as_str().as_bytes().cmp(b.as_str().as_bytes())
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

fn conflict(path: &str, rule: impl std::fmt::Display) -> Error {
    Error::malformed(format!("path \"{path}\""), rule)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tree(paths: &[&str]) -> Result<Tree> {
        let mut paths: Vec<EntryPath> = paths.iter().map(|p| EntryPath::new(p).unwrap()).collect();
        paths.sort_by(by_path);
        Tree::build(paths.iter())
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
