//! What a media type says of how a layer is packed, which its chunk table must say too.
//!
//! Whoever knows nothing of the table goes by the type: a scanner takes a `raw` layer as the file, and
//! unpacks a `tar+gzip` with gzip. A table that packs the layer otherwise would have it shown one file,
//! and the readers of a mount another.
//!
//! What the manifest alone tells is refused when a model is opened. Which of two compressions a table is
//! for, only the table tells, which is read when the file is.

use super::table::{Framing, Header};
use crate::layer::reader::{LayerSpec, Reading};
use crate::oci::media_type;
use crate::oci::stated::TablePlace;
use crate::printable::printable;

/// How a layer must be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    /// It is the file.
    File,
    /// It is a tar in this framing.
    Tar(Framing),
}

impl Claim {
    /// What the media type of a layer claims, as its system reads it.
    pub(crate) fn of(spec: &LayerSpec) -> Claim {
        match spec.reading {
            Reading::File => Claim::File,
            Reading::Archive | Reading::Either | Reading::Members => {
                Claim::Tar(match media_type::compression(&spec.stated.media_type) {
                    Some("gzip") => Framing::Gzip,
                    Some("zstd") => Framing::Zstd,
                    _ => Framing::Plain,
                })
            }
        }
    }

    /// Compares it with what a descriptor states: where the table is, and the sizes of layer and file.
    ///
    /// # Errors
    /// How the two contradict each other.
    pub(crate) fn check_stated(self, spec: &LayerSpec) -> Result<(), String> {
        let stated = &*spec.stated;
        let (Some(table), Some(file_size)) = (stated.chunks, stated.file_size) else {
            return Ok(());
        };
        let agrees = match (self, table.place) {
            (Claim::File, TablePlace::Blob) => file_size == stated.size,
            (Claim::File, TablePlace::Members(..)) => false,
            (Claim::Tar(Framing::Plain), TablePlace::Blob) => file_size < stated.size,
            // Where a tool has decompressed the layer, its table is gone.
            (Claim::Tar(_), TablePlace::Members(..)) => true,
            (Claim::Tar(_), TablePlace::Blob) => false,
        };
        match agrees {
            true => Ok(()),
            false => {
                let (size, kind) = (stated.size, self.name(spec));
                Err(match table.place {
                    TablePlace::Blob => format!(
                        "{kind}, its annotations say that {size} bytes of it hold {file_size} bytes of \
                         file as they are"
                    ),
                    TablePlace::Members(..) => {
                        format!("{kind}, its annotations say that a chunk table stands in it")
                    }
                })
            }
        }
    }

    /// Compares it with what a table says.
    ///
    /// # Errors
    /// How the two contradict each other.
    pub(super) fn check_table(self, spec: &LayerSpec, header: &Header) -> Result<(), String> {
        let bare = header.framing == Framing::Plain && header.tar_size == header.file_size;
        let agrees = match self {
            Claim::File => bare,
            Claim::Tar(framing) => framing == header.framing && !bare,
        };
        match agrees {
            true => Ok(()),
            false => {
                let found = match header.framing {
                    Framing::Gzip => "a tar compressed with gzip",
                    Framing::Zstd => "a tar compressed with zstd",
                    Framing::Plain if bare => "the file alone",
                    Framing::Plain => "a tar that is not compressed",
                };
                let kind = self.name(spec);
                Err(format!("{kind}, by its chunk table it is {found}"))
            }
        }
    }

    fn name(self, spec: &LayerSpec) -> String {
        let media_type: String = printable(&spec.stated.media_type)
            .chars()
            .take(128)
            .collect();
        let kind = match self {
            Claim::File => "the file itself",
            Claim::Tar(Framing::Gzip) => "a tar compressed with gzip",
            Claim::Tar(Framing::Zstd) => "a tar compressed with zstd",
            Claim::Tar(Framing::Plain) => "a tar that is not compressed",
        };
        format!("is {kind} by its media type {media_type}")
    }
}
