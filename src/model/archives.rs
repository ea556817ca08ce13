//! Models with layers of any number of files: opens these layers, and makes files of what they hold
//! together with those that the manifest names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::built::Built;
use super::compose::{Composed, FileNumber, Shown};
use super::file::{File, FileInfo};
use super::node::Inode;
use super::notes::Notes;
use super::opening::{OpenedFile, Opening};
use super::subtree::Subtree;
use super::tree::{by_path, sort_empty};
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::{Archive, Attributes, FileReader, MemberFile, Opened, Reading};
use crate::printable::shown;
use crate::systems::{ArchiveLayer, Contents, Entry, Names, Part, Parts, System};

/// A layer of any number of files, opened.
struct OpenArchive {
    layer: ArchiveLayer,
    archive: Arc<Archive>,
}

/// Memory that an open layer takes, in bytes, beside what is known of its files.
const LAYER_BYTES: u64 = 1536;

/// The layers of any number of files: those that the manifest says are some, and those that are found to be
/// in place of one file.
pub(super) fn layers(contents: &mut Contents, opened: &[OpenedFile]) -> Vec<ArchiveLayer> {
    let mut layers = std::mem::take(&mut contents.archives);
    for (entry, opened) in contents.files.iter().zip(opened) {
        if let (Opened::Members, Some(part)) = (&opened.opened, entry.parts.only()) {
            layers.push(ArchiveLayer {
                part: Part {
                    reading: Reading::Members,
                    ..part.clone()
                },
                names: Names::File(entry.path.clone()),
            });
        }
    }
    layers.sort_by_key(|layer| layer.part.number);
    layers
}

/// Memory, in bytes, that these take, and so many files of them, whose paths have so many bytes.
fn memory_of(archives: &[OpenArchive], files: &Shown) -> u64 {
    let mut seen = HashSet::new();
    let distinct = archives
        .iter()
        .filter(|open| seen.insert(Arc::as_ptr(&open.archive)));
    let layers = distinct.map(|open| LAYER_BYTES + open.archive.memory());
    let file = size_of::<File>() + size_of::<MemberFile>() + 2 * size_of::<usize>();
    let paths = files.files.iter().map(|(path, _)| path.as_str().len());
    let paths: usize = paths
        .chain(files.empty.iter().map(|path| path.as_str().len()))
        .sum();
    let files = files.files.len() * file + paths;
    layers.sum::<u64>().saturating_add(files as u64)
}

/// Where a file is that has a number.
enum Source<'a> {
    /// A layer that holds it alone.
    Named(&'a Entry, &'a OpenedFile),
    /// One of any number of files.
    Member(&'a OpenArchive, u32),
}

/// The files of a model, and its empty directories.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) for two layers of one path, where they do not lie
/// over each other, and when there is too much; [`ErrorKind::Usage`](crate::ErrorKind::Usage) when the
/// directory that is wanted is not there.
pub(super) fn compose(
    entries: &[Entry],
    opened: &[OpenedFile],
    layers: Vec<ArchiveLayer>,
    system: &dyn System,
    subtree: &Subtree,
    opening: &mut Opening<'_>,
    notes: &mut Notes,
) -> Result<Built> {
    let mut remarks = Notes::default();
    let mut composed = Composed::new(system, opening.memory() / 2, &mut remarks);
    let Archives {
        archives,
        mut count,
        damaged,
    } = open_all(layers, opening, &mut composed)?;
    let mut named = Vec::new();
    for (entry, opened) in entries.iter().zip(opened) {
        let opened = damaged.get(&entry.path).unwrap_or(opened);
        let layer = entry.parts.first().number;
        match &opened.opened {
            Opened::File(..) => {
                composed.add_file(&entry.path, layer, number(count)?)?;
                named.push(Source::Named(entry, opened));
                count += 1;
            }
            Opened::Link(target) => composed.add_link(&entry.path, layer, target)?,
            Opened::Directory => composed.add_directory(&entry.path, layer)?,
            Opened::Members => {}
        }
    }
    let directory = directory(&composed, system, subtree, notes)?;
    let mut found = composed.shown(directory)?;
    remarks.iter().for_each(|remark| notes.push(remark));
    let memory = memory_of(&archives, &found);
    found.files.sort_by(|(a, _), (b, _)| by_path(a, b));
    sort_empty(&mut found.empty);
    let members = archives.iter().flat_map(|open| {
        let files = 0..open.archive.files();
        files.map(move |file| Source::Member(open, file))
    });
    let sources: Vec<Source<'_>> = members.chain(named).collect();
    let file = |(path, number): (EntryPath, FileNumber)| {
        let source = sources.get(number as usize);
        source.and_then(|source| source.file(path))
    };
    Ok(Built {
        files: found.files.into_iter().filter_map(file).collect(),
        empty: found.empty.into(),
        memory,
    })
}

/// The layers of any number of files.
struct Archives {
    archives: Vec<OpenArchive>,
    /// Number of their files.
    count: usize,
    /// What stands for damaged ones, where the manifest names a path for it.
    damaged: HashMap<EntryPath, OpenedFile>,
}

/// Opens one layer after the other, and adds what is in it: of all the lists of what is in them, one is held
/// at a time, unless its layer comes again.
fn open_all(
    layers: Vec<ArchiveLayer>,
    opening: &mut Opening<'_>,
    composed: &mut Composed<'_>,
) -> Result<Archives> {
    let mut times: HashMap<Digest, usize> = HashMap::new();
    for layer in &layers {
        *times.entry(layer.part.stated.digest).or_default() += 1;
    }
    let (mut count, mut damaged) = (0, HashMap::new());
    let mut archives = Vec::with_capacity(layers.len());
    for layer in layers {
        let digest = layer.part.stated.digest;
        let left = times.entry(digest).or_default();
        *left = left.saturating_sub(1);
        let open = match (opening.open_archive(&layer, *left > 0), &layer.names) {
            (Ok(open), _) => open,
            // It may have been taken for several files because of the damage.
            (Err(error), Names::File(path)) => {
                damaged.insert(path.clone(), opening.damaged(&layer, path, error)?);
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        composed.add_layer(&layer, &open.members, number(count)?)?;
        count += open.archive.files() as usize;
        let archive = Arc::clone(&open.archive);
        archives.push(OpenArchive { layer, archive });
    }
    Ok(Archives {
        archives,
        count,
        damaged,
    })
}

/// Which directory is shown.
fn directory(
    composed: &Composed<'_>,
    system: &dyn System,
    subtree: &Subtree,
    notes: &mut Notes,
) -> Result<Option<u32>> {
    match subtree {
        Subtree::All => Ok(None),
        Subtree::Below(path) => composed.directory(path).map(Some).ok_or_else(|| {
            let path = shown(path);
            Error::usage(format_args!(
                "--prefix: the model has no directory {path}, or an empty one"
            ))
        }),
        Subtree::Usual => {
            let Some(home) = system.home() else {
                return Ok(None);
            };
            let found = composed.directory(home);
            notes.push(match found {
                Some(_) => format!("of the image, /{home} is shown; --root shows all of it"),
                None => format!(
                    "the image has no /{home}: all of it is shown; --prefix chooses a directory"
                ),
            });
            Ok(found)
        }
    }
}

fn number(count: usize) -> Result<FileNumber> {
    let too_many = |_| Error::malformed("model", "has too many files");
    FileNumber::try_from(count).map_err(too_many)
}

impl Source<'_> {
    fn file(&self, path: EntryPath) -> Option<File> {
        let (reader, attributes, parts, digest): (Arc<dyn FileReader>, _, _, _) = match self {
            Source::Named(entry, found) => {
                let Opened::File(reader, attributes) = &found.opened else {
                    return None;
                };
                let digest = entry.parts.only().and_then(|part| part.stated.file_digest);
                (Arc::clone(reader), *attributes, entry.parts.clone(), digest)
            }
            Source::Member(OpenArchive { layer, archive }, number) => {
                let (reader, attr) = archive.file(*number)?;
                let mut part = layer.part.clone();
                if matches!(&layer.names, Names::File(named) if *named == path) {
                    // What the manifest states is about this one file.
                    part.reading = Reading::Either;
                }
                let attributes = Attributes::Guessed(attr);
                (Arc::new(reader), attributes, Parts::from(part), None)
            }
        };
        let unconfirmed = match self {
            Source::Named(entry, found) if found.unconfirmed => Some(entry.path.file_name().into()),
            _ => None,
        };
        Some(File {
            info: FileInfo {
                inode: Inode::ROOT, // until the tree is built
                path,
                shown_size: attributes.shown().size,
                parts,
                digest,
            },
            attributes,
            reader,
            link_to: None,
            unconfirmed,
            verified: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        })
    }
}
