//! What the beginning of a file of weights says: its format, and whether it has the size that it needs.
//!
//! Formats are told by content where it can be seen in the first bytes, and else by name. What cannot
//! be understood is nobody's fault here: it is some other file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::tree::{InputFile, Tree};
use crate::error::Result;
use crate::files::calls;
use crate::limits;

/// What a file of weights is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Weights {
    /// What loads it; `None` for what several do.
    pub framework: Option<String>,
    /// How much that says: of files that say different things the least counts.
    pub rank: u8,
    /// The model's architecture, where the file names it.
    pub architecture: Option<String>,
    /// A pickle: loading it runs what is in it.
    pub pickle: bool,
    /// Why it cannot be whole.
    pub problem: Option<String>,
}

impl Weights {
    fn of(framework: &str, rank: u8) -> Option<Weights> {
        Some(Weights {
            framework: Some(framework.into()),
            rank,
            ..Weights::default()
        })
    }
}

/// Extensions under which pickles are kept.
const PICKLES: [&str; 8] = [
    "pt", "pth", "bin", "ckpt", "pkl", "pickle", "joblib", "dill",
];
/// Bytes of a ZIP that are searched for the names of its entries, from its end.
const DIRECTORY_BYTES: u64 = 64 << 10;

/// Looks at one file; `None` for what is no weights.
pub(super) fn look(tree: &Tree, file: &InputFile) -> Result<Option<Weights>> {
    let name = file.path.file_name().to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, end)| end);
    match (&*name, extension) {
        ("saved_model.pb", _) => return Ok(Weights::of("tensorflow", 1)),
        ("tf_model.h5", _) => return Ok(Weights::of("tensorflow", 5)),
        ("flax_model.msgpack", _) => return Ok(Weights::of("flax", 6)),
        (_, "keras") => return Ok(Weights::of("keras", 5)),
        _ => {}
    }
    let looked_at =
        ["safetensors", "gguf", "onnx", "h5"].contains(&extension) || PICKLES.contains(&extension);
    if !looked_at {
        return Ok(None);
    }
    let mut header = Header::open(tree, file)?;
    let magic = header.peek(64)?;
    if magic.starts_with(b"version https://") {
        // A pointer of git-lfs, of which more is said already.
        return Ok(None);
    }
    Ok(match extension {
        "safetensors" => Some(safetensors(&mut header)?),
        "gguf" => gguf(&mut header)?,
        // The first field of a ModelProto is its version of the format.
        "onnx" if magic.first() == Some(&0x08) => Weights::of("onnx", 7),
        "h5" if magic.starts_with(b"\x89HDF\r\n\x1a\n") => Weights::of("keras", 5),
        _ if PICKLES.contains(&extension) => pickled(&mut header, extension, &magic)?,
        _ => None,
    })
}

/// A file of PyTorch, or a plain pickle.
fn pickled(header: &mut Header<'_>, extension: &str, magic: &[u8]) -> Result<Option<Weights>> {
    /// How `torch.save` begins without a ZIP: a pickle of this number.
    const OLD_TORCH: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    // Of protocol 2 and later; those before have no beginning of their own.
    let is_pickle = matches!(magic, [0x80, 2..=5, ..]);
    let torch = |pickle| {
        let mut weights = Weights::of("pytorch", 3)?;
        weights.pickle = pickle;
        Some(weights)
    };
    Ok(match first_entry(magic) {
        // TorchScript is code, too, but its own.
        Some(name) if is_torch(name) => torch(!header.ends_with_entry(b"/code/")?),
        _ if magic.starts_with(OLD_TORCH) => torch(true),
        // Compressed or not.
        _ if extension == "joblib" => Weights::of("sklearn", 8).map(|weights| Weights {
            pickle: true,
            ..weights
        }),
        _ if is_pickle => Some(Weights {
            rank: u8::MAX,
            pickle: true,
            ..Weights::default()
        }),
        _ => None,
    })
}

/// The name of the first entry of a ZIP, as far as it is there. Source: APPNOTE.TXT, section 4.3.7.
fn first_entry(magic: &[u8]) -> Option<&[u8]> {
    let rest = magic.strip_prefix(b"PK\x03\x04")?;
    let length = u16::from_le_bytes(rest.get(22..24)?.try_into().ok()?);
    let name = rest.get(26..)?;
    Some(name.get(..length.into()).unwrap_or(name))
}

/// True for the first entry of what PyTorch writes: `NAME/data.pkl` and the like.
fn is_torch(name: &[u8]) -> bool {
    let ends = [
        "/data.pkl",
        "/constants.pkl",
        "/version",
        "/byteorder",
        "/.format_version",
    ];
    ends.iter().any(|end| name.ends_with(end.as_bytes()))
        || name
            .windows(6)
            .any(|part| part == b"/code/" || part == b"/data/")
}

/// `{"__metadata__": {…}, "TENSOR": {"data_offsets": [BEGIN, END], …}, …}`
#[derive(Default)]
struct Tensors {
    format: Option<String>,
    end: u64,
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tensors, D::Error> {
        #[derive(Deserialize)]
        struct Tensor {
            data_offsets: (u64, u64),
        }
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Tensors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
                let mut tensors = Tensors::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let mut metadata = map.next_value::<BTreeMap<String, String>>()?;
                        tensors.format = metadata.remove("format");
                    } else {
                        let tensor = map.next_value::<Tensor>()?;
                        tensors.end = tensors.end.max(tensor.data_offsets.1);
                    }
                }
                Ok(tensors)
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Source: huggingface/safetensors, "Format": a length, a JSON header of that length, the tensors.
fn safetensors(header: &mut Header<'_>) -> Result<Weights> {
    let mut weights = Weights {
        framework: Some("safetensors".into()),
        rank: 2,
        ..Weights::default()
    };
    let size = header.size;
    let Some(length) = header.u64()? else {
        weights.problem = Some(format!("has {size} bytes, which is no safetensors file"));
        return Ok(weights);
    };
    let needs = |bytes: u64| format!("has {size} bytes, its header says {bytes}");
    let data = length.saturating_add(8);
    if data > size {
        weights.problem = Some(needs(data));
        return Ok(weights);
    }
    if length > limits::MAX_SHARD_INDEX_BYTES {
        // No real one is so large; it is not known what is in it.
        return Ok(weights);
    }
    let Some(text) = header.bytes(length)? else {
        return Ok(weights);
    };
    match serde_json::from_slice::<Tensors>(&text) {
        Ok(tensors) => {
            let whole = data.saturating_add(tensors.end);
            if whole != size {
                weights.problem = Some(needs(whole));
            }
            let framework = match tensors.format.as_deref() {
                Some("pt") => "pytorch",
                Some("tf") => "tensorflow",
                Some("flax") => "flax",
                Some("mlx") => "mlx",
                _ => "safetensors",
            };
            weights.framework = Some(framework.into());
        }
        Err(_) => weights.problem = Some("has a header that is not one of safetensors".into()),
    }
    Ok(weights)
}

/// Elements of one block of a type, and the bytes it takes, by the type's number. Source:
/// ggml-org/ggml, "docs/gguf.md" and `type_traits` in ggml.c.
const GGML_TYPES: [(u32, u64, u64); 33] = [
    (0, 1, 4),
    (1, 1, 2),
    (2, 32, 18),
    (3, 32, 20),
    (6, 32, 22),
    (7, 32, 24),
    (8, 32, 34),
    (9, 32, 36),
    (10, 256, 84),
    (11, 256, 110),
    (12, 256, 144),
    (13, 256, 176),
    (14, 256, 210),
    (15, 256, 292),
    (16, 256, 66),
    (17, 256, 74),
    (18, 256, 98),
    (19, 256, 50),
    (20, 32, 18),
    (21, 256, 110),
    (22, 256, 82),
    (23, 256, 136),
    (24, 1, 1),
    (25, 1, 2),
    (26, 1, 4),
    (27, 1, 8),
    (28, 1, 8),
    (29, 256, 56),
    (30, 1, 2),
    (34, 256, 54),
    (35, 256, 66),
    (39, 32, 17),
    (40, 64, 36),
];

/// Source: ggml-org/ggml, "docs/gguf.md". `None` for what is no GGUF file of a known version.
fn gguf(header: &mut Header<'_>) -> Result<Option<Weights>> {
    let mut weights = Weights {
        framework: Some("gguf".into()),
        rank: 4,
        ..Weights::default()
    };
    let size = header.size;
    let is_gguf = header.bytes(4)?.as_deref() == Some(b"GGUF");
    match header.u32()? {
        Some(2..=3) if is_gguf => {}
        _ => return Ok(None),
    }
    match gguf_end(header, &mut weights.architecture)? {
        End::Needs(bytes) if bytes > size => {
            weights.problem = Some(format!("has {size} bytes, its header says {bytes}"));
        }
        End::CutOff => weights.problem = Some(format!("has {size} bytes, its header is longer")),
        End::Needs(_) | End::Unknown => {}
    }
    Ok(Some(weights))
}

/// Where the last tensor of a GGUF file ends.
enum End {
    /// At this byte, at least.
    Needs(u64),
    /// The file ends before the header does.
    CutOff,
    /// The header is too long, or not understood.
    Unknown,
}

/// A value's bytes of each type of metadata, by number; 8 and 9 are strings and arrays.
fn gguf_width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// The next value of a header, or the end of the function when it has none.
macro_rules! next {
    ($header:expr, $read:expr) => {
        match $read {
            Some(value) => value,
            None => return Ok(Err($header.why())),
        }
    };
}

fn gguf_end(header: &mut Header<'_>, architecture: &mut Option<String>) -> Result<End> {
    let (alignment, data) = match gguf_header(header, architecture)? {
        Ok(found) => found,
        Err(end) => return Ok(end),
    };
    Ok(End::Needs(match data {
        0 => header.at,
        data => match header.at.checked_next_multiple_of(alignment) {
            Some(start) => start.saturating_add(data),
            None => return Ok(End::Unknown),
        },
    }))
}

/// What data are aligned to, and how many there are.
fn gguf_header(
    header: &mut Header<'_>,
    architecture: &mut Option<String>,
) -> Result<Result<(u64, u64), End>> {
    let tensors = next!(header, header.u64()?);
    let pairs = next!(header, header.u64()?);
    let mut alignment = 32;
    for _ in 0..pairs {
        let key = next!(header, header.string()?);
        let kind = next!(header, header.u32()?);
        match (&*key, kind) {
            (b"general.architecture", 8) => {
                let value = next!(header, header.string()?);
                *architecture = String::from_utf8(value).ok();
            }
            (b"general.alignment", 4) => {
                alignment = u64::from(next!(header, header.u32()?)).max(1);
            }
            (_, kind) => match gguf_skip(header, kind)? {
                Ok(()) => {}
                Err(end) => return Ok(Err(end)),
            },
        }
    }
    let mut data = 0u64;
    for _ in 0..tensors {
        match gguf_tensor(header)? {
            Ok(end) => data = data.max(end),
            Err(end) => return Ok(Err(end)),
        }
    }
    Ok(Ok((alignment, data)))
}

/// Passes over one value.
fn gguf_skip(header: &mut Header<'_>, kind: u32) -> Result<Result<(), End>> {
    match (kind, gguf_width(kind)) {
        (_, Some(width)) => next!(header, header.skip(width)?),
        (8, None) => drop(next!(header, header.string()?)),
        (9, None) => {
            let of = next!(header, header.u32()?);
            let count = next!(header, header.u64()?);
            match (of, gguf_width(of)) {
                (_, Some(width)) => next!(header, header.skip(count.saturating_mul(width))?),
                (8, None) => {
                    for _ in 0..count {
                        let length = next!(header, header.u64()?);
                        next!(header, header.skip(length)?);
                    }
                }
                // Arrays of arrays are allowed, and nobody writes them.
                _ => return Ok(Err(End::Unknown)),
            }
        }
        (_, None) => return Ok(Err(End::Unknown)),
    }
    Ok(Ok(()))
}

/// Where the data of a tensor end, counted from where those of the first begin.
fn gguf_tensor(header: &mut Header<'_>) -> Result<Result<u64, End>> {
    let length = next!(header, header.u64()?);
    next!(header, header.skip(length)?);
    let dimensions = next!(header, header.u32()?);
    if dimensions > 8 {
        return Ok(Err(End::Unknown));
    }
    let mut elements = 1u64;
    for _ in 0..dimensions {
        elements = elements.saturating_mul(next!(header, header.u64()?));
    }
    let kind = next!(header, header.u32()?);
    let offset = next!(header, header.u64()?);
    let known = GGML_TYPES.iter().find(|(number, ..)| *number == kind);
    let bytes = known.map_or(0, |(_, block, bytes)| {
        (elements / block).saturating_mul(*bytes)
    });
    Ok(Ok(offset.saturating_add(bytes)))
}

/// Reads the beginning of a file, bounded.
struct Header<'a> {
    tree: &'a Tree,
    file: &'a InputFile,
    input: File,
    size: u64,
    /// What was read and is not used.
    buffer: Vec<u8>,
    used: usize,
    /// Where the next byte is.
    at: u64,
}

/// How much is read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How much of a header is read; tokens of a GGUF file take some megabytes.
const MAX_HEADER_BYTES: u64 = limits::MAX_SHARD_INDEX_BYTES + (1 << 20);
/// Longest text that is kept.
const MAX_TEXT_BYTES: u64 = 64 << 10;

impl<'a> Header<'a> {
    fn open(tree: &'a Tree, file: &'a InputFile) -> Result<Header<'a>> {
        Ok(Header {
            tree,
            file,
            input: tree.open(file)?,
            size: file.identity.size,
            buffer: Vec::new(),
            used: 0,
            at: 0,
        })
    }

    /// Why a value is not to be had.
    fn why(&self) -> End {
        match self.at >= self.size {
            true => End::CutOff,
            false => End::Unknown,
        }
    }

    /// Reads until so many bytes are there, or the file ends.
    fn fill(&mut self, length: usize) -> Result<&[u8]> {
        if self.buffer.len() - self.used < length {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        while self.buffer.len() < length {
            let have = self.buffer.len();
            self.buffer.resize(have + PIECE_BYTES, 0);
            let piece = self.buffer.get_mut(have..).unwrap_or_default();
            let read = calls::read(&self.input, piece)
                .map_err(|errno| self.tree.failed(self.file, "read", errno.into()))?;
            self.buffer.truncate(have + read);
            if read == 0 {
                break;
            }
        }
        Ok(self.buffer.get(self.used..).unwrap_or_default())
    }

    /// The next bytes, at most so many, which stay the next.
    fn peek(&mut self, length: usize) -> Result<Vec<u8>> {
        let bytes = self.fill(length)?;
        Ok(bytes.get(..length).unwrap_or(bytes).to_vec())
    }

    /// The next bytes; `None` when there are fewer, or more than a header has.
    fn bytes(&mut self, length: u64) -> Result<Option<Vec<u8>>> {
        let end = self.at.saturating_add(length);
        if end > MAX_HEADER_BYTES {
            return Ok(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(bytes) = self.fill(length)?.get(..length).map(<[u8]>::to_vec) else {
            self.at = self.size;
            return Ok(None);
        };
        self.used += length;
        self.at = end;
        Ok(Some(bytes))
    }

    fn skip(&mut self, length: u64) -> Result<Option<()>> {
        let mut rest = length;
        while rest > 0 {
            let piece = rest.min(PIECE_BYTES as u64);
            if self.bytes(piece)?.is_none() {
                return Ok(None);
            }
            rest -= piece;
        }
        Ok(Some(()))
    }

    fn u32(&mut self) -> Result<Option<u32>> {
        let bytes = self.bytes(4)?;
        Ok(bytes.and_then(|b| Some(u32::from_le_bytes(b.try_into().ok()?))))
    }

    fn u64(&mut self) -> Result<Option<u64>> {
        let bytes = self.bytes(8)?;
        Ok(bytes.and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?))))
    }

    fn string(&mut self) -> Result<Option<Vec<u8>>> {
        match self.u64()? {
            Some(length @ ..=MAX_TEXT_BYTES) => self.bytes(length),
            _ => Ok(None),
        }
    }

    /// True when the directory at the end of a ZIP has a name with this part.
    fn ends_with_entry(&mut self, part: &[u8]) -> Result<bool> {
        let length = self.size.min(DIRECTORY_BYTES);
        let mut tail = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = calls::read_at(&self.input, &mut tail, self.size - length)
            .map_err(|errno| self.tree.failed(self.file, "read", errno.into()))?;
        tail.truncate(read);
        Ok(tail.windows(part.len()).any(|name| name == part))
    }
}
