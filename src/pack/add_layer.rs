//! Adds a layer to an archive, replaces or removes one: a new archive is built beside the old one and
//! takes its place.
//!
//! Guarantees: the manifest, index and config of the result are true; the archive is the old or
//! the new one at every moment, never a part; it holds nothing of a layer that is gone. Of several at once each waits for the one before it, and starts from what that one
//! made: the archive is locked from the first look at it to the moment when it is replaced, and it
//! is only replaced while it is what the new one was made from. An archive of the original tool
//! becomes an OCI image layout.
//!
//! Blobs that are carried over are checked against their digests where a layer is only added. Where one
//! is replaced or removed they are copied by the kernel, without a look at them: so also out of an
//! archive of which the layer is damaged, and as fast as the storage can; `verify` looks at them.
//! What stands in front of the layer shares its blocks with the old archive where the file system can.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::archive::Archive;
use super::model_layer::ModelLayer;
use super::options::PackOptions;
use super::packed::Packed;
use super::plan::Settings;
use super::tree::Tree;
use super::{documents, pipeline};
use crate::digest::{Digest, Hasher};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::files::calls;
use crate::files::identity::Identity;
use crate::files::lock::{Lock, try_lock};
use crate::files::output::OutputPlace;
use crate::files::place::Place;
use crate::limits;
use crate::model::resolve::{Documents, Resolved, resolve};
use crate::model::{Model, OpenOptions};
use crate::oci::stated::{MediaTypes, StatedTable, TablePlace};
use crate::oci::{Descriptor, Index, OciManifest, Stated, annotations, media_type};
use crate::printable::printable_path;
use crate::source::{ArchiveSource, BlobSource};

/// Bytes of a blob that are carried over at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes that the kernel copies at a time, between looks whether to stop.
const COPIED_BYTES: u64 = 64 << 20;

/// How often a lock that somebody else has is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Adds one file to an archive, in place: the manifest, index and config stay true, and the
/// archive is replaced atomically. Without a title the file's base name is used. `options.force`
/// means nothing here. [`Packed::file_bytes`] counts the files whose size the manifest states.
///
/// While another run adds a layer to the archive this one waits, up to
/// [`limits::ADD_LAYER_WAIT`]; then it adds its own to what the other one made.
///
/// # Errors
/// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): a file of this title exists already, or
///   one title would be a directory of the other; the archive is not a model of this project or
///   the original tool; the file or the archive changed meanwhile, or is locked for too long.
/// - [`ErrorKind::Usage`](crate::ErrorKind::Usage): the title is no path of a file, or an option
///   is no valid value.
/// - Whatever opening the archive can fail with. The archive is then as it was.
pub fn add_layer(
    archive: &Path,
    file: &Path,
    title: Option<&str>,
    options: &PackOptions,
) -> Result<Packed> {
    let title = checked_title(file, title)?;
    change(archive, options, |old| {
        old.check_title(&title)?;
        Ok(Some(input(file, title)?))
    })
}

/// The same, but a file of this title that the archive has already is replaced. Without a title the
/// file's base name is used.
///
/// # Errors
/// As [`add_layer`], and those of [`remove_layer`].
pub fn replace_layer(
    archive: &Path,
    file: &Path,
    title: Option<&str>,
    options: &PackOptions,
) -> Result<Packed> {
    let title = checked_title(file, title)?;
    change(archive, options, |old| {
        if old.has(title.as_str()) {
            old.leave_out(title.as_str())?;
        }
        old.check_title(&title)?;
        Ok(Some(input(file, title)?))
    })
}

/// Removes the layer of the file `title` from an archive, in place, as [`add_layer`] adds one. The model
/// may be without files then. A blob that other files have, too, stays.
///
/// # Errors
/// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): the archive has no such layer, or more than
///   one; another file is a link to this one; the archive is not a model of this project or the
///   original tool, changed meanwhile, or is locked for too long.
/// - [`ErrorKind::Usage`](crate::ErrorKind::Usage): the title is no path of a file.
/// - Whatever opening the archive can fail with. The archive is then as it was.
pub fn remove_layer(archive: &Path, title: &str, options: &PackOptions) -> Result<Packed> {
    let title = EntryPath::new(title).map_err(|error| Error::usage(format!("title: {error}")))?;
    change(archive, options, |old| {
        old.leave_out(title.as_str())?;
        Ok(None)
    })
}

/// Makes an archive anew. `decide` leaves out of the old one what is to go, and returns what is added.
fn change(
    archive: &Path,
    options: &PackOptions,
    decide: impl FnOnce(&mut OldArchive<'_>) -> Result<Option<Tree>>,
) -> Result<Packed> {
    let settings = Settings::new(options)?;
    let claim = Claim::take(archive, &settings)?;
    let path = claim.place.path.clone();
    let source = Arc::new(ArchiveSource::from_file(claim.file, &path)?);
    let mut old = OldArchive::open(&source)?;
    let tree = decide(&mut old)?;

    let place = OutputPlace::of(claim.place, Identity::of(&claim.stat));
    // No wider than the old one's at any moment.
    let output = place.create(claim.stat.st_mode)?;
    let mut out = Archive::in_file(output.handle()?, &path, settings.mtime);
    let packed = old.write_with(tree.as_ref(), &settings, &mut out)?;
    let packed = Packed {
        archive_bytes: out.finish()?,
        ..packed
    };
    old.check_links(output.handle()?, &path)?;
    output.take_over(&claim.stat)?;
    settings.check_cancelled(&path)?;
    output.commit()?;
    drop(claim.lock);
    Ok(packed)
}

/// An archive that this process alone changes, as far as locks are kept.
struct Claim {
    place: Place,
    file: File,
    stat: Stat,
    lock: Lock,
}

impl Claim {
    /// Opens and locks the archive at `path`. A link to an archive stays a link.
    fn take(path: &Path, settings: &Settings) -> Result<Claim> {
        let started = Instant::now();
        let mut told = false;
        loop {
            settings.check_cancelled(path)?;
            let (place, file, stat) = open(path)?;
            let lock = try_lock(&place.dir, &place.name, &file);
            if let Some(Lock::Impossible(errno)) = lock {
                log::warn!(
                    "{} cannot be locked ({errno}): do not change it meanwhile",
                    printable_path(path)
                );
            }
            // Whoever had the lock before has replaced the file that was opened.
            let name = place.name.as_os_str();
            let now = calls::statat(&place.dir, name).map_err(failed("open", path))?;
            match lock {
                Some(lock) if Identity::of(&now) == Identity::of(&stat) => {
                    return Ok(Claim {
                        place,
                        file,
                        stat,
                        lock,
                    });
                }
                Some(_) => {}
                None => {
                    if !told {
                        log::warn!(
                            "waiting for another run that changes {}",
                            printable_path(path)
                        );
                    }
                    told = true;
                    thread::sleep(LOCK_INTERVAL);
                }
            }
            if started.elapsed() > limits::ADD_LAYER_WAIT {
                return Err(Error::refused(
                    printable_path(path),
                    format!(
                        "has been locked or changed by others for {} seconds; try again when they \
                         are done",
                        limits::ADD_LAYER_WAIT.as_secs()
                    ),
                ));
            }
        }
    }
}

/// Opens what `path` leads to, when it is a regular file; a FIFO is not waited for.
fn open(path: &Path) -> Result<(Place, File, Stat)> {
    let (place, seen) = Place::of_target(path).map_err(failed("open", path))?;
    let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let not_a_file = |stat: &Stat| {
        let problem = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                "is a directory; only archives, which are one file, can be changed: pack the model again"
            }
            _ => "exists and is not a regular file",
        };
        Error::refused(printable_path(path), problem)
    };
    if !is_file(&seen) {
        return Err(not_a_file(&seen));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let name = place.name.as_os_str();
    let file = calls::openat(&place.dir, name, flags, Mode::empty());
    let file = File::from(file.map_err(failed("open", path))?);
    let stat = calls::fstat(&file).map_err(failed("read", path))?;
    if !is_file(&stat) {
        return Err(not_a_file(&stat));
    }
    Ok((place, file, stat))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let error = Error::io(action, path);
    move |errno| error(errno.into())
}

fn checked_title(file: &Path, title: Option<&str>) -> Result<EntryPath> {
    let base_name = || file.file_name().and_then(|name| name.to_str());
    let title = title.or_else(base_name).ok_or_else(|| {
        Error::usage(format!(
            "{} has no name that could be a title; name one",
            printable_path(file)
        ))
    })?;
    EntryPath::new(title).map_err(|error| Error::usage(format!("title: {error}")))
}

/// The file to add, as if a walk had found it.
fn input(file: &Path, title: EntryPath) -> Result<Tree> {
    let refused = || Error::refused(printable_path(file), "is not a regular file");
    let (place, stat) = Place::of_target(file).map_err(|errno| match errno {
        Errno::ISDIR => refused(),
        errno => failed("open", file)(errno),
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused());
    }
    Ok(Tree::of_file(place, &stat, title, file))
}

/// The archive that is changed.
struct OldArchive<'a> {
    source: &'a Arc<ArchiveSource>,
    documents: Documents,
    /// What tools address the model as.
    reference: String,
    /// Its layers in path order.
    layers: Vec<ModelLayer>,
    /// Where a layer is left out: the links that have to lead where they did, and where that is.
    links: Option<Vec<(String, String)>>,
}

impl OldArchive<'_> {
    fn open(source: &Arc<ArchiveSource>) -> Result<OldArchive<'_>> {
        let resolved = resolve(&**source, None)?;
        let refuse = |problem: &str| Error::refused(source.name(), problem);
        let Some(config) = &resolved.config else {
            return Err(refuse(
                "is not a model of this tool; its layers cannot be changed",
            ));
        };
        let documents = resolved.documents(&**source)?;
        let all = documents.manifest.layers.iter();
        let mut layers: Vec<ModelLayer> = all
            .filter(|layer| !layer.is_empty())
            .cloned()
            .map(ModelLayer::from)
            .collect();
        if let Some(layer) = layers.iter().find(|layer| layer.title().is_empty()) {
            return Err(refuse(&format!("layer {} has no title", layer.digest())));
        }
        layers.sort_by(|a, b| a.title().cmp(b.title()));
        Ok(OldArchive {
            reference: reference(&**source, &resolved)?.unwrap_or_else(|| config.version.clone()),
            source,
            layers,
            documents,
            links: None,
        })
    }

    fn has(&self, title: &str) -> bool {
        self.layers.iter().any(|layer| layer.title() == title)
    }

    /// True when a layer is replaced or removed.
    fn leaves_out(&self) -> bool {
        self.links.is_some()
    }

    /// Leaves the layer of a title out. What other files are links to has to stay.
    fn leave_out(&mut self, title: &str) -> Result<()> {
        let refuse = |problem: String| Err(Error::refused(self.source.name(), problem));
        let mut of_title = self.layers.iter().filter(|layer| layer.title() == title);
        if of_title.next().is_none() {
            let inside = self.layers.iter().find(|layer| below(layer.title(), title));
            return refuse(match inside {
                Some(inside) => format!(
                    "has no layer \"{title}\", but \"{}\": one layer at a time",
                    inside.title()
                ),
                None => format!("has no layer \"{title}\""),
            });
        }
        if of_title.next().is_some() {
            return refuse(format!("has more than one layer \"{title}\""));
        }
        let links = links(Arc::clone(self.source))?;
        if let Some((link, _)) = links.iter().find(|(_, file)| file == title) {
            return refuse(format!(
                "has a layer \"{link}\", which is a link to \"{title}\"; remove that first"
            ));
        }
        self.links = Some(
            links
                .into_iter()
                .filter(|(link, _)| link != title)
                .collect(),
        );
        self.layers.retain(|layer| layer.title() != title);
        Ok(())
    }

    /// Refuses a new archive in which a link leads elsewhere, or nowhere, without what was left out.
    fn check_links(&self, new: File, path: &Path) -> Result<()> {
        let Some(before) = &self.links else {
            return Ok(());
        };
        let after = links(Arc::new(ArchiveSource::from_file(new, path)?))
            .map_err(|error| Error::refused("without this layer", error.to_string()))?;
        match before.iter().find(|link| !after.contains(link)) {
            None => Ok(()),
            Some((link, _)) => Err(Error::refused(
                self.source.name(),
                format!(
                    "has a layer \"{link}\", which is a link by way of this one; remove that first"
                ),
            )),
        }
    }

    /// Refuses a title that the archive has, or that has one of the archive's for its directory.
    fn check_title(&self, title: &EntryPath) -> Result<()> {
        let new = title.as_str();
        for layer in &self.layers {
            let old = layer.title();
            let problem = if old == new {
                format!("has a layer \"{old}\" already")
            } else if below(old, new) || below(new, old) {
                format!("has a layer \"{old}\", which cannot stand beside \"{new}\"")
            } else {
                continue;
            };
            return Err(Error::refused(self.source.name(), problem));
        }
        Ok(())
    }

    /// Writes everything with the one file of `tree` added.
    fn write_with(
        &self,
        tree: Option<&Tree>,
        settings: &Settings,
        out: &mut Archive,
    ) -> Result<Packed> {
        let new_title = tree.and_then(|tree| tree.files.first());
        let new_title = new_title.map_or("", |file| file.path.as_str());
        let at = self.layers.partition_point(|l| l.title() < new_title);
        let (before, after) = self.layers.split_at(at);
        for layer in before {
            self.carry_over(layer.descriptor(), settings, out)?;
        }
        let added = match tree {
            Some(tree) => pipeline::write_layers(tree, settings, out, &|_, _| {})?,
            None => Vec::new(),
        };
        for layer in after {
            self.carry_over(layer.descriptor(), settings, out)?;
        }

        let mut tables = Vec::new();
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        for layer in before {
            tables.extend(self.carry_over_table(layer.descriptor(), settings, out)?);
            layers.push(descriptor(layer));
        }
        layers.extend(added);
        for layer in after {
            tables.extend(self.carry_over_table(layer.descriptor(), settings, out)?);
            layers.push(descriptor(layer));
        }

        let manifest = self.manifest(layers);
        let config = &self.documents.config_bytes;
        let written = documents::write(out, &manifest, config, &self.reference, tables)?;
        Ok(Packed {
            config: None,
            found: Vec::new(),
            manifest_digest: written.manifest_digest,
            files: manifest.layers.iter().filter(|l| !l.is_empty()).count() as u64,
            file_bytes: manifest.layers.iter().map(file_size).sum(),
            layers: manifest.layers,
            archive_bytes: 0,
            left_out: Vec::new(),
            warnings: written.warnings,
        })
    }

    /// The old manifest with other layers. The original tool gave its config the media type of an
    /// image's, which it is not.
    fn manifest(&self, layers: Vec<Descriptor>) -> OciManifest {
        let old = &self.documents.manifest;
        let mut config = old.config.clone();
        config.media_type = media_type::MODEL_CONFIG.into();
        config.data = None;
        let mut manifest = OciManifest::new(config, layers);
        if old.artifact_type.is_some() {
            manifest.artifact_type.clone_from(&old.artifact_type);
        }
        manifest.subject.clone_from(&old.subject);
        manifest.annotations.clone_from(&old.annotations);
        manifest
    }

    /// Copies a blob, which must be what its digest says, unless it is copied as it is.
    fn carry_over(
        &self,
        descriptor: &Descriptor,
        settings: &Settings,
        out: &mut Archive,
    ) -> Result<()> {
        let size = Some(descriptor.size);
        let blob = self.source.blob(&descriptor.digest, size)?.ok_or_else(|| {
            Error::malformed(
                self.source.name(),
                format!("blob {} is missing", descriptor.digest),
            )
        })?;
        if self.leaves_out() {
            // The damage of one layer must not keep another from being replaced, nor its size.
            return self.copy(&descriptor.digest, settings, out);
        }
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        out.begin_blob()?;
        while offset < blob.len() {
            settings.check_cancelled(out.name())?;
            let rest = usize::try_from(blob.len() - offset).unwrap_or(usize::MAX);
            let length = piece.len().min(rest);
            let piece = piece.get_mut(..length).unwrap_or_default();
            blob.read_exact_at(piece, offset)?;
            hasher.update(piece);
            out.write(piece)?;
            offset += length as u64;
        }
        let found = hasher.finish();
        if found != descriptor.digest {
            return Err(Error::corrupt(
                format!("{}: blob {}", self.source.name(), descriptor.digest),
                format!("its content is {found}"),
            ));
        }
        out.end_blob(&descriptor.digest)
    }

    fn copy(&self, digest: &Digest, settings: &Settings, out: &mut Archive) -> Result<()> {
        let Some((file, mut offset, mut left)) = self.source.range(digest) else {
            return Ok(());
        };
        out.begin_blob()?;
        while left > 0 {
            settings.check_cancelled(out.name())?;
            let copied = out.copy_from(file, offset, left.min(COPIED_BYTES))?;
            if copied == 0 {
                return Err(Error::corrupt(
                    format!("{}: blob {digest}", self.source.name()),
                    "the archive ends within it",
                ));
            }
            offset += copied;
            left -= copied;
        }
        out.end_blob(digest)
    }

    /// Copies the chunk table of a layer that keeps it in a blob of its own; a table that is not
    /// there was lost on some way before, and the layer is readable without.
    fn carry_over_table(
        &self,
        layer: &Descriptor,
        settings: &Settings,
        out: &mut Archive,
    ) -> Result<Option<Descriptor>> {
        let stated = Stated::of(layer, &mut MediaTypes::default())?;
        let Some(StatedTable {
            digest,
            place: TablePlace::Blob,
        }) = stated.chunks
        else {
            return Ok(None);
        };
        let Some(blob) = self.source.blob(&digest, None)? else {
            return Ok(None);
        };
        let table = Descriptor::new(media_type::CHUNK_TABLE, digest, blob.len());
        self.carry_over(&table, settings, out)?;
        Ok(Some(table))
    }
}

/// The links of a model, and the file that each leads to.
fn links(source: Arc<ArchiveSource>) -> Result<Vec<(String, String)>> {
    let model = Model::from_source(source, &OpenOptions::default())?;
    let links = model.links();
    Ok(links
        .map(|(link, file)| (link.to_string(), file.to_string()))
        .collect())
}

/// True for a path in the directory `outer`.
fn below(inner: &str, outer: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The reference name that the index gives the model.
fn reference(source: &dyn BlobSource, resolved: &Resolved) -> Result<Option<String>> {
    let Some(index) = source.document("index.json", limits::MAX_MANIFEST_BYTES)? else {
        return Ok(None);
    };
    let manifests = Index::parse(&index)?.manifests;
    let mut ours = manifests
        .iter()
        .filter(|manifest| manifest.digest == resolved.manifest_digest);
    Ok(ours.find_map(|manifest| {
        let name = manifest.annotation(annotations::REF_NAME);
        name.map(str::to_string)
    }))
}

fn descriptor(layer: &ModelLayer) -> Descriptor {
    Descriptor {
        data: None,
        ..layer.descriptor().clone()
    }
}

fn file_size(layer: &Descriptor) -> u64 {
    let stated = Stated::of(layer, &mut MediaTypes::default());
    stated.ok().and_then(|stated| stated.file_size).unwrap_or(0)
}
