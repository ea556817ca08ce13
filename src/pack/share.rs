//! One content is stored once: of files that are one (links and hard links lead to it), or that hold the
//! same bytes, the first by path is packed, and the others become links to it.

use std::collections::HashMap;
use std::io;

use super::plan::Settings;
use super::tree::{InputFile, Other, OtherKind, Tree};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::files::calls;
use crate::limits;

/// Bytes by whose digest files are told apart before they are compared.
const HEAD: u64 = 64 << 10;
/// Bytes that are compared at once.
const PIECE: usize = 1 << 20;

/// Smaller files are packed as they are: a link takes as much.
const LEAST: u64 = 4 << 10;
/// A file is compared with no more than so many that begin like it: what differs further on, such as the
/// states of an optimiser, would else be read again for each of the others.
const MOST_COMPARED: usize = 4;

/// Replaces all but the first file of each content by links to it.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when a file changes while it is compared, or the work
/// is to stop; those of reading.
pub(super) fn share(tree: &mut Tree, settings: &Settings) -> Result<()> {
    let firsts = firsts(tree, settings)?;
    let Tree { files, others, .. } = tree;
    let all = std::mem::take(files);
    let paths: Vec<EntryPath> = all.iter().map(|file| file.path.clone()).collect();
    for (number, file) in all.into_iter().enumerate() {
        let first = firsts.get(&number).and_then(|first| paths.get(*first));
        let target = first.map(|first| relative(file.path.as_str(), first.as_str()));
        match target.filter(|target| target.len() <= limits::MAX_PATH_BYTES) {
            None => files.push(file),
            Some(target) => others.push(Other {
                kind: OtherKind::Link {
                    target,
                    size: file.identity.size,
                },
                path: file.path,
            }),
        }
    }
    Ok(())
}

/// For each file that holds what one before it holds the number of that one.
fn firsts(tree: &Tree, settings: &Settings) -> Result<HashMap<usize, usize>> {
    let mut firsts = HashMap::new();
    let mut nodes: HashMap<(u64, u64), usize> = HashMap::new();
    let mut sizes: HashMap<(u64, bool), Vec<usize>> = HashMap::new();
    for (number, file) in tree.files.iter().enumerate() {
        if file.identity.size < LEAST {
            continue;
        }
        let first = *nodes.entry(file.identity.node()).or_insert(number);
        match first == number {
            // A link says nothing of permissions: they are those of the file.
            true => sizes
                .entry((file.identity.size, file.executable))
                .or_default()
                .push(number),
            false => drop(firsts.insert(number, first)),
        }
    }
    for twins in sizes.into_values().filter(|twins| twins.len() > 1) {
        let mut heads: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for number in twins {
            let Some(file) = tree.files.get(number) else {
                continue;
            };
            settings.check_cancelled(&tree.root_path)?;
            let candidates = heads.entry(head(tree, file)?).or_default();
            let mut same = None;
            for first in candidates.iter().take(MOST_COMPARED) {
                if let Some(other) = tree.files.get(*first)
                    && are_equal(tree, file, other, settings)?
                {
                    same = Some(*first);
                    break;
                }
            }
            match same {
                Some(first) => drop(firsts.insert(number, first)),
                None => candidates.push(number),
            }
        }
    }
    Ok(firsts)
}

/// The digest of the first bytes of a file.
fn head(tree: &Tree, file: &InputFile) -> Result<[u8; 32]> {
    let input = tree.open(file)?;
    let mut bytes = vec![0; file.identity.size.min(HEAD) as usize];
    calls::read_exact(&input, &mut bytes).map_err(|error| shrunk(tree, file, error))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// True when two files of one size hold the same bytes. The first difference ends it.
fn are_equal(tree: &Tree, one: &InputFile, other: &InputFile, settings: &Settings) -> Result<bool> {
    let (a, b) = (tree.open(one)?, tree.open(other)?);
    let mut rest = one.identity.size;
    let piece = rest.min(PIECE as u64) as usize;
    let (mut left, mut right) = (vec![0; piece], vec![0; piece]);
    while rest > 0 {
        settings.check_cancelled(&tree.root_path)?;
        let now = rest.min(PIECE as u64) as usize;
        let (left, right) = (
            left.get_mut(..now).unwrap_or_default(),
            right.get_mut(..now).unwrap_or_default(),
        );
        calls::read_exact(&a, left).map_err(|error| shrunk(tree, one, error))?;
        calls::read_exact(&b, right).map_err(|error| shrunk(tree, other, error))?;
        if left != right {
            return Ok(false);
        }
        rest -= now as u64;
    }
    // What was compared is what is packed, and what is not packed again was not changed meanwhile.
    tree.check(one, &a)?;
    tree.check(other, &b)?;
    Ok(true)
}

fn shrunk(tree: &Tree, file: &InputFile, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => tree.changed(file, "shrank while it was packed"),
        _ => tree.failed(file, "read", error),
    }
}

/// The path that leads from the directory of `from` to `to`.
fn relative(from: &str, to: &str) -> String {
    let above: Vec<&str> = from.split('/').rev().skip(1).collect();
    let names: Vec<&str> = to.split('/').collect();
    let shared = above
        .iter()
        .rev()
        .zip(&names)
        .take_while(|(a, b)| a == b)
        .count();
    // The last name of `to` is that of a file, and no directory on the way.
    let shared = shared.min(names.len() - 1);
    let up = std::iter::repeat_n("..", above.len() - shared);
    let down = names.get(shared..).unwrap_or_default().iter().copied();
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_where_they_are() {
        for (from, to, expected) in [
            ("b", "a", "a"),
            ("d/b", "d/a", "a"),
            ("d/b", "a", "../a"),
            ("b", "d/a", "d/a"),
            ("d/e/b", "d/f/a", "../f/a"),
            ("a/b/c", "a/b/a", "a"),
            ("x/y/z", "x", "../../x"),
            ("d/e/x", "d/e/f/x", "f/x"),
        ] {
            assert_eq!(relative(from, to), expected, "{from} to {to}");
        }
    }
}
