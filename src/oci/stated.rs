//! What a descriptor states about a layer and the file in it. Read once, by one policy: an annotation
//! that makes no sense is refused, whether it is needed or not. And written here, in the same spelling.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde_json::Value;

use super::{Descriptor, annotations, json, time};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::printable::quoted;

/// What a descriptor states about a layer and the one file that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Digest of the layer's blob.
    pub digest: Digest,
    /// Size of the layer's blob, in bytes.
    pub size: u64,
    /// Media type of the layer's blob.
    pub media_type: Arc<str>,
    /// Digest of the file (`io.modeloci.file.digest`).
    pub file_digest: Option<Digest>,
    /// Size of the file, in bytes (`io.modeloci.file.size`).
    pub file_size: Option<u64>,
    /// Whether the file is executable (`io.modeloci.file.mode`).
    pub executable: Option<bool>,
    /// Its chunk table (`io.modeloci.chunks`).
    pub chunks: Option<StatedTable>,
    /// Whether the layer is a directory (`io.deis.oras.content.unpack`).
    pub unpack: bool,
    /// Whether it holds an empty directory in place of a file (`io.modeloci.directory`).
    pub directory: bool,
    /// What ModelPack states of the file, which goes before what a tar says; few layers have it, and
    /// there may be many layers.
    pub metadata: Option<Box<FileMetadata>>,
}

/// What ModelPack states of a file (`org.cncf.model.file.metadata+json`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileMetadata {
    /// Whether it is executable.
    pub executable: Option<bool>,
    /// Its modification time, in seconds after the epoch.
    pub mtime: Option<NonZeroU64>,
}

/// The chunk table that a descriptor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatedTable {
    /// Digest of its bytes, or of the blob that holds them.
    pub digest: Digest,
    /// Where it is.
    pub place: TablePlace,
}

/// Where a chunk table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TablePlace {
    /// Its members stand in the layer's blob: offset and length, in bytes.
    Members(u64, u64),
    /// It is a blob of its own.
    Blob,
}

/// The media types of a list of layers, of which there are few: each is held once.
#[derive(Debug, Default)]
pub struct MediaTypes(HashSet<Arc<str>>);

impl MediaTypes {
    fn shared(&mut self, media_type: &str) -> Arc<str> {
        if let Some(known) = self.0.get(media_type) {
            return Arc::clone(known);
        }
        let new: Arc<str> = media_type.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

impl Stated {
    /// Reads a descriptor. Errors name the annotation; who calls says of which layer.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when an annotation makes no sense.
    pub fn of(descriptor: &Descriptor, media_types: &mut MediaTypes) -> Result<Stated> {
        let read = |key| Annotation {
            key,
            value: descriptor.annotation(key),
        };
        let range = read(annotations::CHUNKS_RANGE).range()?;
        let chunks = read(annotations::CHUNKS).digest()?;
        Ok(Stated {
            digest: descriptor.digest,
            size: descriptor.size,
            media_type: media_types.shared(&descriptor.media_type),
            file_digest: read(annotations::FILE_DIGEST).digest()?,
            file_size: read(annotations::FILE_SIZE).size()?,
            executable: read(annotations::FILE_MODE).executable()?,
            unpack: descriptor.annotation(annotations::ORAS_UNPACK) == Some("true"),
            directory: descriptor.annotation(annotations::DIRECTORY) == Some("true"),
            metadata: FileMetadata::of(descriptor)?,
            chunks: chunks.map(|digest| StatedTable {
                digest,
                place: range.map_or(TablePlace::Blob, |(offset, length)| {
                    TablePlace::Members(offset, length)
                }),
            }),
        })
    }
}

impl FileMetadata {
    fn of(descriptor: &Descriptor) -> Result<Option<Box<FileMetadata>>> {
        let [old, older] = annotations::MODELPACK_OLD_METADATA;
        let keys = [annotations::MODELPACK_METADATA, old, older];
        let found = keys
            .into_iter()
            .find_map(|key| Some((key, descriptor.annotation(key)?)));
        let Some((key, text)) = found else {
            return Ok(None);
        };
        let subject = format!("annotation {key}");
        let value = json::parse(text.as_bytes(), &subject)?;
        let refuse =
            |field: &str, rule: &str| Err(Error::malformed(&subject, format!("{field} {rule}")));
        if !value.is_object() {
            return refuse("its value", "is no object");
        }
        let executable = match value.get("mode") {
            None | Some(Value::Null) => None,
            Some(mode) => match mode.as_u64() {
                Some(mode) => Some(mode & 0o111 != 0),
                None => return refuse("mode", "is not a number of permission bits"),
            },
        };
        let mtime = match value.get("mtime") {
            None | Some(Value::Null) => None,
            Some(mtime) => match mtime.as_str().and_then(time::parse) {
                // Before the epoch nothing was made: tools that do not know the time write it.
                Some(time) => NonZeroU64::new(time.as_secs()),
                None => return refuse("mtime", "is no time of RFC 3339"),
            },
        };
        Ok(Some(Box::new(FileMetadata { executable, mtime })))
    }
}

/// What names a layer's file, by the reading rules: ModelPack's annotation, its older spelling, then the
/// title; for Ollama's tensors, which have none, the name of the descriptor.
pub fn path_of(descriptor: &Descriptor) -> Option<&str> {
    let keys = [
        annotations::MODELPACK_FILEPATH,
        annotations::MODELPACK_OLD_FILEPATH,
        annotations::TITLE,
    ];
    let annotated = keys.into_iter().find_map(|key| descriptor.annotation(key));
    let is_ollama = descriptor.media_type.starts_with("application/vnd.ollama.");
    annotated.or(descriptor.name.as_deref().filter(|_| is_ollama))
}

/// Has a descriptor name its layer's file, as everybody reads it.
pub fn name(descriptor: &mut Descriptor, path: &str) {
    for key in [annotations::MODELPACK_FILEPATH, annotations::TITLE] {
        descriptor.annotations.insert(key.into(), path.into());
    }
}

/// Has a descriptor say that its layer holds an empty directory.
pub fn mark_directory(descriptor: &mut Descriptor) {
    let key = annotations::DIRECTORY.into();
    descriptor.annotations.insert(key, "true".into());
}

/// What `pack` states of the one file in a layer.
#[derive(Debug, Clone, Copy)]
pub struct FileStatement<'a> {
    /// Its path in the model.
    pub path: &'a str,
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// Its mode, where that says something: of an executable one.
    pub mode: Option<u32>,
    /// Its chunk table.
    pub chunks: StatedTable,
}

impl FileStatement<'_> {
    /// Writes it to the descriptor of the layer.
    pub fn write(&self, descriptor: &mut Descriptor) {
        name(descriptor, self.path);
        let mut state = |key: &str, value: String| {
            descriptor.annotations.insert(key.into(), value);
        };
        state(annotations::FILE_DIGEST, self.digest.to_string());
        state(annotations::FILE_SIZE, self.size.to_string());
        if let Some(mode) = self.mode {
            state(annotations::FILE_MODE, format!("{mode:04o}"));
        }
        state(annotations::CHUNKS, self.chunks.digest.to_string());
        if let TablePlace::Members(offset, length) = self.chunks.place {
            state(annotations::CHUNKS_RANGE, format!("{offset}+{length}"));
        }
    }
}

/// One annotation, absent or not.
struct Annotation<'a> {
    key: &'static str,
    value: Option<&'a str>,
}

impl Annotation<'_> {
    /// Its value, as `read` understands it.
    fn parsed<T>(&self, rule: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value else {
            return Ok(None);
        };
        match read(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Error::malformed(
                format!("annotation {}", self.key),
                format!("{} {rule}", quoted(value)),
            )),
        }
    }

    fn digest(&self) -> Result<Option<Digest>> {
        self.parsed("is not a digest", |value| value.parse().ok())
    }

    fn size(&self) -> Result<Option<u64>> {
        self.parsed("is not a size in bytes", |value| {
            decimal(value).filter(|n| *n <= limits::MAX_FILE_BYTES)
        })
    }

    fn range(&self) -> Result<Option<(u64, u64)>> {
        self.parsed("is not a range of the layer", |value| {
            let (offset, length) = value.split_once('+')?;
            let (offset, length) = (decimal(offset)?, decimal(length)?);
            offset.checked_add(length)?;
            (length <= limits::MAX_CHUNK_TABLE_BYTES).then_some((offset, length))
        })
    }

    fn executable(&self) -> Result<Option<bool>> {
        self.parsed("is not an octal mode", |value| {
            let mode = u32::from_str_radix(value, 8).ok()?;
            Some(mode & 0o111 != 0)
        })
    }
}

/// A number in decimal digits alone: no sign, no leading zero, no space.
fn decimal(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stated(list: &[(&str, &str)]) -> Result<Stated> {
        let mut descriptor = Descriptor::of("t", b"blob");
        let texts = list.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        descriptor.annotations.extend(texts);
        Stated::of(&descriptor, &mut MediaTypes::default())
    }

    #[test]
    fn what_is_stated_is_read() {
        let digest = Digest::sha256(b"x");
        let text = digest.to_string();
        let all = stated(&[
            (annotations::FILE_DIGEST, &text),
            (annotations::FILE_SIZE, "5"),
            (annotations::FILE_MODE, "0755"),
            (annotations::CHUNKS, &text),
            (annotations::CHUNKS_RANGE, "7+9"),
        ])
        .unwrap();
        assert_eq!((all.file_digest, all.file_size), (Some(digest), Some(5)));
        assert_eq!(all.executable, Some(true));
        let place = TablePlace::Members(7, 9);
        assert_eq!(all.chunks, Some(StatedTable { digest, place }));
        let none = stated(&[(annotations::CHUNKS_RANGE, "7+9")]).unwrap();
        assert_eq!(
            (none.chunks, none.file_size, none.executable),
            (None, None, None)
        );
        let blob = stated(&[(annotations::CHUNKS, &text)]).unwrap().chunks;
        assert_eq!(blob.unwrap().place, TablePlace::Blob);
    }

    #[test]
    fn what_is_written_is_read() {
        let (digest, table) = (Digest::sha256(b"x"), Digest::sha256(b"y"));
        for place in [TablePlace::Members(7, 9), TablePlace::Blob] {
            for mode in [None, Some(0o755)] {
                let written = FileStatement {
                    path: "a/b",
                    digest,
                    size: 5,
                    mode,
                    chunks: StatedTable {
                        digest: table,
                        place,
                    },
                };
                let mut descriptor = Descriptor::of("t", b"blob");
                written.write(&mut descriptor);
                let read = Stated::of(&descriptor, &mut MediaTypes::default()).unwrap();
                assert_eq!(path_of(&descriptor), Some("a/b"));
                assert_eq!(descriptor.annotation(annotations::TITLE), Some("a/b"));
                assert_eq!((read.file_digest, read.file_size), (Some(digest), Some(5)));
                assert_eq!(read.executable, mode.map(|_| true));
                assert_eq!(read.chunks, Some(written.chunks));
            }
        }
    }

    #[test]
    fn l9_annotations_that_make_no_sense_are_refused_needed_or_not() {
        for (key, values) in [
            (annotations::FILE_DIGEST, &["", "sha256:00"][..]),
            (annotations::CHUNKS, &["md5:00"]),
            (
                annotations::FILE_SIZE,
                &[
                    "",
                    "-1",
                    "+1",
                    "05",
                    "1 ",
                    "1e3",
                    "99999999999999999999",
                    "1125899906842625",
                ],
            ),
            (annotations::FILE_MODE, &["rwx", "0888"]),
            (
                annotations::CHUNKS_RANGE,
                &[
                    "",
                    "5",
                    "1+",
                    "+1",
                    "01+1",
                    "1+268435457",
                    "18446744073709551615+1",
                ],
            ),
        ] {
            for value in values {
                let error = stated(&[(key, value)]).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("annotation {key}: \"{value}\" is not")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn the_metadata_of_modelpack_gives_mode_and_time() {
        let read = |key, text| stated(&[(key, text)]).map(|stated| *stated.metadata.unwrap());
        let text =
            r#"{"name":"run.sh","mode":493,"uid":0,"size":4,"mtime":"2023-11-14T22:13:20Z"}"#;
        for key in [
            annotations::MODELPACK_METADATA,
            annotations::MODELPACK_OLD_METADATA[0],
            annotations::MODELPACK_OLD_METADATA[1],
        ] {
            let metadata = read(key, text).unwrap();
            assert_eq!(metadata.executable, Some(true));
            assert_eq!(metadata.mtime.unwrap().get(), 1_700_000_000);
        }
        let key = annotations::MODELPACK_METADATA;
        for (text, executable) in [
            ("{}", None),
            (
                r#"{"mode":420,"mtime":"0001-01-01T00:00:00Z"}"#,
                Some(false),
            ),
            (r#"{"mode":null,"mtime":null}"#, None),
        ] {
            let expected = FileMetadata {
                executable,
                mtime: None,
            };
            assert_eq!(read(key, text).unwrap(), expected, "{text}");
        }
        for (text, rule) in [
            ("", "annotation org.cncf.model.file.metadata+json"),
            ("[]", "is no object"),
            (r#"{"mode":"rwx"}"#, "mode is not"),
            (r#"{"mtime":"yesterday"}"#, "mtime is no time"),
            (r#"{"mtime":5}"#, "mtime is no time"),
        ] {
            let error = read(key, text).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn media_types_are_held_once() {
        let mut types = MediaTypes::default();
        let one = Stated::of(&Descriptor::of("t", b"a"), &mut types).unwrap();
        let two = Stated::of(&Descriptor::of("t", b"b"), &mut types).unwrap();
        assert!(Arc::ptr_eq(&one.media_type, &two.media_type));
    }
}
