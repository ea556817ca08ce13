//! Adds one file to an archive: a new archive is built beside the old one and takes its place.
//!
//! Guarantees: the manifest, index and config of the result are true; the archive is the old or
//! the new one at every moment, never a part; every blob that is carried over was checked against
//! its digest. Of several at once each waits for the one before it, and starts from what that one
//! made: the archive is locked from the first look at it to the moment when it is replaced, and it
//! is only replaced while it is what the new one was made from. An archive of the original tool
//! becomes an OCI image layout.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::archive::Archive;
use super::output::OutputPlace;
use super::plan::Settings;
use super::tree::Tree;
use super::{ModelLayer, PackOptions, Packed, documents, pipeline};
use crate::digest::{Digest, Hasher};
use crate::entry_path::{EntryPath, printable_path};
use crate::error::{Error, Result};
use crate::files::calls;
use crate::files::identity::Identity;
use crate::files::lock::{Lock, try_lock};
use crate::files::place::Place;
use crate::limits;
use crate::model::resolve::{Documents, Resolved, resolve};
use crate::oci::{Descriptor, Index, OciManifest, annotations, media_type};
use crate::source::{ArchiveSource, BlobSource, ReadAt};

/// Bytes of a blob that are carried over at a time.
const PIECE_BYTES: usize = 1 << 20;

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
    let settings = Settings::new(options)?;
    let title = checked_title(file, title)?;
    let claim = Claim::take(archive, &settings)?;
    let path = claim.place.path.clone();
    let source = ArchiveSource::from_file(claim.file, &path)?;
    let old = OldArchive::open(&source)?;
    old.check_title(&title)?;

    let tree = input(file, title)?;
    let place = OutputPlace::of(claim.place, Identity::of(&claim.stat));
    // No wider than the old one's at any moment.
    let output = place.create(claim.stat.st_mode)?;
    let mut out = Archive::in_file(output.handle()?, &path, settings.mtime);
    let packed = old.write_with(&tree, &settings, &mut out)?;
    let packed = Packed {
        archive_bytes: out.finish()?,
        ..packed
    };
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
    let not_a_file = || Error::refused(printable_path(path), "exists and is not a regular file");
    if !is_file(&seen) {
        return Err(not_a_file());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let name = place.name.as_os_str();
    let file = calls::openat(&place.dir, name, flags, Mode::empty());
    let file = File::from(file.map_err(failed("open", path))?);
    let stat = calls::fstat(&file).map_err(failed("read", path))?;
    if !is_file(&stat) {
        return Err(not_a_file());
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
    let root_path = Place::dir_of(&place.path).to_path_buf();
    Ok(Tree::of_file(place, &stat, title, &root_path))
}

/// The archive that gets a layer.
struct OldArchive<'a> {
    source: &'a dyn BlobSource,
    documents: Documents,
    /// What tools address the model as.
    reference: String,
    /// Its layers in path order.
    layers: Vec<ModelLayer>,
}

impl OldArchive<'_> {
    fn open(source: &dyn BlobSource) -> Result<OldArchive<'_>> {
        let resolved = resolve(source, None)?;
        let refuse = |problem: &str| Error::refused(source.name(), problem);
        let Some(config) = &resolved.config else {
            return Err(refuse(
                "is not a model of this tool; a layer cannot be added to it",
            ));
        };
        let documents = resolved.documents(source)?;
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
            reference: reference(source, &resolved)?.unwrap_or_else(|| config.version.clone()),
            source,
            layers,
            documents,
        })
    }

    /// Refuses a title that the archive has, or that has one of the archive's for its directory.
    fn check_title(&self, title: &EntryPath) -> Result<()> {
        let new = title.as_str();
        let below = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
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
    fn write_with(&self, tree: &Tree, settings: &Settings, out: &mut Archive) -> Result<Packed> {
        let new_title = tree.files.first().map_or("", |file| file.path.as_str());
        let at = self.layers.partition_point(|l| l.title() < new_title);
        let (before, after) = self.layers.split_at(at);
        for layer in before {
            self.carry_over(layer.descriptor(), settings, out)?;
        }
        let added = pipeline::write_layers(tree, settings, out, &|_, _| {})?;
        for layer in after {
            self.carry_over(layer.descriptor(), settings, out)?;
        }

        let mut tables = Vec::new();
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        for layer in before {
            tables.extend(self.carry_over_table(layer.descriptor(), settings, out)?);
            layers.push(descriptor(layer));
        }
        for layer in added {
            if let Some(table) = layer.table {
                tables.push(out.blob(media_type::CHUNK_TABLE, &table)?);
            }
            layers.push(layer.descriptor);
        }
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
            files: manifest.layers.len() as u64,
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

    /// Copies a blob, which must be what its digest says.
    fn carry_over(
        &self,
        descriptor: &Descriptor,
        settings: &Settings,
        out: &mut Archive,
    ) -> Result<()> {
        let blob = self.blob(&descriptor.digest)?.ok_or_else(|| {
            Error::malformed(
                self.source.name(),
                format!("blob {} is missing", descriptor.digest),
            )
        })?;
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

    /// Copies the chunk table of a layer that keeps it in a blob of its own; a table that is not
    /// there was lost on some way before, and the layer is readable without.
    fn carry_over_table(
        &self,
        layer: &Descriptor,
        settings: &Settings,
        out: &mut Archive,
    ) -> Result<Option<Descriptor>> {
        let Some(Ok(digest)) = layer
            .annotation(annotations::CHUNKS)
            .filter(|_| layer.annotation(annotations::CHUNKS_RANGE).is_none())
            .map(str::parse::<Digest>)
        else {
            return Ok(None);
        };
        let Some(blob) = self.blob(&digest)? else {
            return Ok(None);
        };
        let table = Descriptor::new(media_type::CHUNK_TABLE, digest, blob.len());
        self.carry_over(&table, settings, out)?;
        Ok(Some(table))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<std::sync::Arc<dyn ReadAt>>> {
        self.source.blob(digest)
    }
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
    layer
        .annotation(annotations::FILE_SIZE)
        .and_then(|size| size.parse().ok())
        .unwrap_or(0)
}
