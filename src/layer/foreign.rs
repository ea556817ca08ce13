//! Layers without a chunk table: anyone's gzip, zstd, tar or raw blob.
//!
//! Opening one reads its first kilobytes, for the size and mode that its own header gives its file:
//! a member, which is a range of the layer's stream. The stream verifies before it answers, and has
//! the members compared with what was taken for them: see [`stream`](crate::stream) and `members`.
//!
//! A layer that holds a link in place of a file is verified as a whole when it is opened.
//!
//! Refuses: streams that are damaged, cut short or followed by anything; tars with no file, several
//! files, devices, links beside a file, or a file of another name than the manifest's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::file_digests::{FileDigests, FileHasher};
use super::members::{self, Content, OneFile, Opening, Packaging};
use super::reader::{Attributes, FileAttr, FileReader, LayerSpec, LinkTarget, Opened, Reading};
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::memory::context::Context;
use crate::memory::shared_work::Helpers;
use crate::oci::media_type;
use crate::source::ReadAt;
use crate::stream::{Guess, Listener, Proven, Stream, Taken, Tuning, Wait, Within};

/// What a layer without a chunk table holds.
pub(crate) enum Looked {
    /// A file, as far as its first kilobytes tell.
    File(Arc<ForeignFile>),
    /// A link; the layer was verified.
    Link(LinkTarget),
    /// A directory with nothing in it; the layer was verified.
    Directory,
    /// Several files, or others than the one that the manifest names.
    Members,
}

/// Looks at a layer without a chunk table: reads at most its first kilobytes, and the whole of a
/// layer that holds a link or a directory.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when the layer's tar begins with anything but the one file,
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when its first bytes cannot be decoded.
pub(super) fn look(
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
) -> Result<Looked> {
    ForeignFile::look(blob, spec, context, Tuning::DEFAULT)
}

/// True for media types that say what a layer must be, so that nothing else is read in its place.
pub(super) fn claims_tar(media_type: &str) -> bool {
    members::claims_compressed_tar(media_type)
}

/// As [`open`](super::open), with distances so short that a few kilobytes have the spans, seek points
/// and frontier that otherwise only files of megabytes have: for fuzzing.
#[doc(hidden)]
pub fn open_in_miniature(
    blob: Arc<dyn ReadAt>,
    spec: LayerSpec,
    context: Arc<Context>,
) -> Result<Opened> {
    let looked = ForeignFile::look(blob, spec.clone(), context, Tuning::MINIATURE)?;
    Ok(match looked {
        Looked::File(file) => {
            let attr = Attributes::Guessed(file.attr_of(&spec)?);
            Opened::File(file, attr)
        }
        Looked::Link(target) => Opened::Link(target),
        Looked::Directory => Opened::Directory,
        Looked::Members => Opened::Members,
    })
}

/// A file in a layer without a chunk table: a range of its stream.
pub(crate) struct ForeignFile {
    /// What the layer's first bytes said. Readers are answered by the stream, which compares it.
    taken_for: Arc<OneFile>,
    stream: Stream,
}

/// What an execute bit says, for messages.
pub(super) fn kind(executable: bool) -> &'static str {
    match executable {
        true => "an executable file",
        false => "a file that is not executable",
    }
}

impl ForeignFile {
    /// The file of a layer, or what it holds instead.
    pub(crate) fn look(
        blob: Arc<dyn ReadAt>,
        spec: LayerSpec,
        context: Arc<Context>,
        tuning: Tuning,
    ) -> Result<Looked> {
        let subject: Arc<str> = format!("{} ({})", spec.path, spec.stated.digest).into();
        if blob.len() != spec.stated.size {
            return Err(Error::malformed(
                subject,
                format!(
                    "the layer has {} bytes, the manifest says {}",
                    blob.len(),
                    spec.stated.size
                ),
            ));
        }
        let content = match members::open(&*blob, &spec, &subject, &context.opening)? {
            Opening::File(content) => content,
            Opening::Link(target) => return Ok(Looked::Link(target)),
            Opening::Directory => return Ok(Looked::Directory),
            Opening::Members => return Ok(Looked::Members),
        };
        let digest = spec.stated.digest;
        let content = Guess::of(content);
        let taken_for = Arc::new(OneFile {
            spec,
            subject: Arc::clone(&subject),
            content,
        });
        let taken = Taken {
            digest,
            subject: Arc::clone(&subject),
            plan: content.map(|content| content.plan()),
            measured: false,
            expected: Arc::<OneFile>::clone(&taken_for),
        };
        let file = ForeignFile {
            taken_for,
            stream: Stream::open(blob, taken, Arc::clone(&context), tuning)?,
        };
        file.prove_if_empty(&context)?;
        Ok(Looked::File(Arc::new(file)))
    }

    /// What the layer is, where its media type says that it is something else.
    pub(super) fn disagreement(&self) -> Option<&'static str> {
        let spec = &self.taken_for.spec;
        if spec.reading == Reading::File {
            return None;
        }
        let said = media_type::compression(&spec.stated.media_type);
        match (self.taken_for.content.unproven().packaging, said) {
            (Packaging::Tar, None)
            | (Packaging::Gzip, Some("gzip"))
            | (Packaging::Zstd, Some("zstd")) => None,
            (Packaging::Raw, _) => Some("no tar"),
            (Packaging::Tar, _) => Some("a tar that is not compressed"),
            (Packaging::Gzip, _) => Some("a tar compressed with gzip"),
            (Packaging::Zstd, _) => Some("a tar compressed with zstd"),
        }
    }

    /// Where byte `offset` of the file is in the stream.
    fn place(&self, offset: u64) -> u64 {
        let taken_for = self.taken_for.content.unproven();
        taken_for.member.start.saturating_add(offset)
    }

    /// Nobody reads an empty file: that it is one is verified when it is opened, or never.
    fn prove_if_empty(&self, context: &Context) -> Result<()> {
        if self.shown_size() > 0 {
            return Ok(());
        }
        let bytes = self.taken_for.spec.stated.size;
        let opening = &context.opening;
        if !opening.affords(bytes) {
            let problem = format!("its first bytes say that {bytes} bytes hold an empty file");
            return Err(Error::corrupt(self.stream.subject(), problem));
        }
        let decoded = || context.decoded.load(Ordering::Relaxed);
        let before = decoded();
        let proven = self.stream.touch();
        // What comes behind an empty file may be megabytes; only the pass tells.
        opening.spend(decoded().saturating_sub(before))?;
        proven
    }

    /// The attributes of the file under a descriptor, which may be another than the layer was opened
    /// for.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) or
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it states what the layer's header does
    /// not.
    pub(crate) fn attr_of(&self, spec: &LayerSpec) -> Result<Guess<FileAttr>> {
        let Content { packaging, member } = *self.taken_for.content.unproven();
        self.check_name(spec.path.file_name())?;
        let differs = |found: String, stated: String| {
            Err(Error::corrupt(
                format!("{} ({})", spec.path, spec.stated.digest),
                format!("the layer holds {found}, the manifest says {stated}"),
            ))
        };
        match spec.stated.file_size {
            Some(stated) if stated != member.attr.size => {
                return differs(
                    format!("a file of {} bytes", member.attr.size),
                    stated.to_string(),
                );
            }
            _ => {}
        }
        match spec.stated.executable {
            Some(stated) if packaging != Packaging::Raw && stated != member.attr.executable => {
                return differs(kind(member.attr.executable).into(), kind(stated).into());
            }
            _ => {}
        }
        Ok(self.taken_for.content.map(|content| match packaging {
            Packaging::Raw => FileAttr {
                // A raw layer has no header that could say so.
                executable: spec.stated.executable == Some(true),
                ..content.member.attr
            },
            _ => content.member.attr,
        }))
    }

    fn check_name(&self, name: &str) -> Result<()> {
        let found = self.taken_for.spec.path.file_name();
        let raw = self.taken_for.content.unproven().packaging == Packaging::Raw;
        if raw || found == name {
            return Ok(());
        }
        Err(Error::malformed(
            self.stream.subject(),
            format!("member \"{found}\" of the layer's tar is not the manifest's \"{name}\""),
        ))
    }
}

/// For tests of streams, which need one that holds something.
#[cfg(test)]
impl ForeignFile {
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn content(&self) -> &Content {
        self.taken_for.content.unproven()
    }
}

impl FileReader for ForeignFile {
    fn shown_size(&self) -> u64 {
        self.taken_for.content.unproven().member.attr.size
    }

    fn proof(&self) -> Option<Result<Proven>> {
        self.stream.proof()
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.stream.read_at(self.place(offset), len)
    }

    fn read_within(&self, may: Option<Wait>, offset: u64, len: usize) -> Result<Within> {
        self.stream.read_within(may, self.place(offset), len)
    }

    fn touch(&self) -> Result<()> {
        self.stream.touch()
    }

    fn advance(&self) -> u64 {
        self.stream.advance()
    }

    fn confirm(&self, name: &str, executable: bool) -> Result<()> {
        self.check_name(name)?;
        let Content { packaging, member } = *self.taken_for.content.unproven();
        if packaging == Packaging::Raw || member.attr.executable == executable {
            return Ok(());
        }
        let (found, stated) = (kind(member.attr.executable), kind(executable));
        Err(Error::corrupt(
            self.stream.subject(),
            format!("the layer holds {found}, the manifest says {stated}"),
        ))
    }

    fn verify_with(&self, also: &[Algorithm], _helpers: &Helpers) -> Result<Vec<FileDigests>> {
        let mut digests = Digesting {
            start: FileHasher::new(also),
            hasher: None,
        };
        self.stream.verify(&mut digests)?;
        let file = digests.hasher.map(FileHasher::finish);
        let file = file.map(|digests| vec![digests]);
        file.ok_or_else(|| Error::corrupt(self.stream.subject(), "its file was not hashed"))
    }
}

/// Computes the digests of the file that a pass goes over.
struct Digesting {
    start: FileHasher,
    hasher: Option<FileHasher>,
}

impl Listener for Digesting {
    fn begin(&mut self) {
        self.hasher = Some(self.start.clone());
    }

    fn hear(&mut self, content: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(content);
        }
    }
}
