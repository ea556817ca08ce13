//! Layers: foreign ones, and such with a chunk table.

use std::sync::Arc;

use bytes::Bytes;
use modeloci::entry_path::EntryPath;
use modeloci::layer::{FileAttr, FileReader, LayerSpec, Reading};
use modeloci::memory::cache::LruChunkCache;
use modeloci::memory::context::Context;
use modeloci::oci::stated::MediaTypes;
use modeloci::oci::{Descriptor, Stated};
use modeloci::source::memory::MemoryBlob;
use modeloci::{Digest, ErrorKind};

use super::super::Random;
use super::super::forge::{Header, Tar, gzip};
use super::{model, reference};

const NAME: &str = "model.bin";
const LIMIT: usize = 24 << 20;

fn context(cache: u64) -> Arc<Context> {
    Arc::new(Context::new(Arc::new(LruChunkCache::new(cache)), None, 0))
}

fn blob(data: &[u8]) -> Arc<MemoryBlob> {
    Arc::new(MemoryBlob(Bytes::copy_from_slice(data)))
}

fn spec(media_type: &str, data: &[u8]) -> LayerSpec {
    let descriptor = Descriptor::of(media_type, data);
    let stated = Stated::of(&descriptor, &mut MediaTypes::default()).expect("no annotations");
    LayerSpec {
        stated: Arc::new(stated),
        path: EntryPath::new(NAME).expect("a path"),
        reading: Reading::Archive,
        table: None,
    }
}

/// Reads pieces at random, then all of the file from its start. Gives every read to `check`.
fn read_pieces(
    file: &dyn FileReader,
    random: &mut Random,
    mut check: impl FnMut(u64, usize, modeloci::Result<Bytes>),
) {
    let size = file.shown_size();
    for _ in 0..6 {
        let offset = random.next() % size.saturating_add(size / 16).saturating_add(2);
        let len = random.length(18);
        check(offset, len, file.read_at(offset, len));
    }
    let mut at = 0;
    while at <= size.min(LIMIT as u64) {
        let read = file.read_at(at, 100_000);
        let ended = read.as_ref().map_or(true, Bytes::is_empty);
        let next = at + read.as_ref().map_or(0, Bytes::len) as u64;
        check(at, 100_000, read);
        if ended {
            break;
        }
        at = next;
    }
}

/// A read of `len` bytes at `offset` has what `whole` has there, as far as that is known; and ends
/// where the file ends.
fn assert_piece(whole: &[u8], size: u64, offset: u64, len: usize, piece: &[u8]) {
    let expected = size.saturating_sub(offset).min(len as u64);
    assert_eq!(
        piece.len() as u64,
        expected,
        "length of a read of {len} at {offset} of {size}"
    );
    let known = usize::try_from(offset)
        .ok()
        .and_then(|start| whole.get(start..))
        .unwrap_or_default();
    let known = &known[..known.len().min(piece.len())];
    assert!(
        piece.starts_with(known),
        "bytes of a read of {len} at {offset} of {size}"
    );
}

fn is_damage(error: &modeloci::Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed)
}

/// What a foreign layer under a right digest must be, by other people's readers.
fn check_foreign(
    file: &dyn FileReader,
    attr: FileAttr,
    blob: &[u8],
    media_type: &str,
    random: &mut Random,
) {
    let stream = reference::decompress(blob);
    let compressed = blob.starts_with(&[0x1f, 0x8b]) || blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let claims = compressed && media_type.ends_with("+gzip");
    // A compressed file that somebody pushed as it is; or something damaged that looks like one.
    let as_it_is = match stream.whole {
        true => !stream.is_tar(),
        false => attr.size == blob.len() as u64 && (compressed || !stream.is_tar()),
    };
    let expected = match as_it_is && !claims {
        false => stream.file(),
        true => Some(reference::Found {
            bytes: blob.to_vec(),
            size: blob.len() as u64,
            mode: Some(0o644),
            mtime: Some(0),
            alone: true,
        }),
    };
    let bytes = expected.as_ref().map_or(&[][..], |file| &file.bytes);
    let mut served = false;
    let mut failed = false;
    read_pieces(file, random, |offset, len, read| match read {
        Ok(piece) => {
            served |= len > 0;
            assert_piece(bytes, attr.size, offset, len, &piece);
        }
        Err(error) => {
            assert!(is_damage(&error), "{error}");
            failed = true;
        }
    });
    let verified = file.verify(&[]).map(|digests| digests.sha256);
    if let Some(expected) = &expected
        && (served || verified.is_ok())
    {
        assert_eq!(attr.size, expected.size, "size");
        if let Some(mode) = expected.mode {
            assert_eq!(attr.executable, mode & 0o111 != 0, "mode");
        }
        if let Some(mtime) = expected.mtime {
            assert_eq!(
                attr.mtime,
                i64::try_from(mtime).map_or(0, |_| mtime),
                "mtime"
            );
        }
    }
    match verified {
        Ok(digest) if stream.bytes.len() < LIMIT => {
            let Some(expected) = expected else { return };
            assert!(expected.alone, "a layer that is sound to us alone");
            assert_eq!(digest, Digest::sha256(&expected.bytes));
            assert!(!failed, "a read of a sound layer failed");
        }
        Ok(_) => {}
        Err(error) => assert!(is_damage(&error), "{error}"),
    }
}

pub mod foreign_layer {
    use super::*;
    use modeloci::layer::{Opened, foreign, open};

    /// How many bytes in front of the blob say how it is read.
    pub const OPTIONS: usize = 2;

    /// Whatever the blob is: what we serve is what flate2, zstd and tar find in it; what verifies can
    /// be read; what is not what its digest says is not served.
    pub fn run(data: &[u8]) {
        let Some(([options, seed], data)) = data.split_first_chunk::<OPTIONS>() else {
            return;
        };
        let media_type = match options & 3 {
            0 => "application/octet-stream",
            1 => "application/vnd.oci.image.layer.v1.tar",
            _ => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        let mut random = Random::new(u64::from(*seed), 0);
        let mut spec = spec(media_type, data);
        let right = options & 4 == 0;
        if !right {
            Arc::make_mut(&mut spec.stated).digest = Digest::sha256(b"something else");
        }
        let opened = match options & 8 {
            0 => foreign::open_in_miniature(blob(data), spec, context(1 << 20)),
            _ => open(blob(data), spec, context(1 << 20)),
        };
        match opened {
            Ok(Opened::File(file, attributes)) if right => {
                let attr = *attributes.shown();
                assert_eq!(attr.size, file.shown_size());
                check_foreign(&*file, attr, data, media_type, &mut random);
            }
            Ok(Opened::File(file, _)) => {
                read_pieces(&*file, &mut random, |_, len, read| {
                    assert!(read.is_err() || len == 0, "served under a wrong digest");
                });
                assert!(file.verify(&[]).is_err());
            }
            Ok(Opened::Link(_) | Opened::Directory) => {
                assert!(right, "no file, under a wrong digest");
            }
            Ok(Opened::Members) => panic!("the layer was to hold one file"),
            Err(error) => assert!(is_damage(&error), "{error}"),
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let text = b"a line of some text, ".repeat(12_000);
        let noise = super::super::super::forge::noise(9, 60_000);
        let tar = |bytes: &[u8]| Tar::new().file(NAME, bytes).end();
        let in_dir = Tar::new()
            .entry(Header::file("d/", 0).kind(b'5'), b"")
            .pax("mtime", "1600000000.5")
            .entry(
                Header::file("d/model.bin", 4).put(100, b"0000755\0"),
                b"#!sh",
            )
            .end();
        let big = Tar::new()
            .entry(
                Header::file(NAME, 0).put(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
                b"abc",
            )
            .end();
        let link = Tar::new()
            .entry(Header::file(NAME, 0).kind(b'2').link("other"), b"")
            .end();
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let mut members = Vec::new();
        tar(&text)
            .chunks(50_000)
            .for_each(|piece| members.extend(gzip(piece)));
        let mut frames = Vec::new();
        tar(&text)
            .chunks(50_000)
            .for_each(|piece| frames.extend(zstd(piece)));
        let blobs = [
            gzip(&tar(&text)),
            gzip(&tar(&noise)),
            gzip(&tar(b"")),
            gzip(&in_dir),
            gzip(&big),
            gzip(&link),
            members,
            zstd(&tar(&text)),
            zstd(&tar(&noise)),
            frames,
            tar(&noise[..9_000]),
            tar(b""),
            in_dir,
            noise[..20_000].to_vec(),
            gzip(b"no tar"),
            Vec::new(),
        ];
        let options = [2, 10, 6, 1, 0];
        let with = |(number, blob): (usize, &Vec<u8>)| {
            let options: &[u8] = if number < 4 { &options } else { &options[..2] };
            options
                .iter()
                .map(|option| [&[*option, number as u8], &blob[..]].concat())
                .collect::<Vec<_>>()
        };
        blobs.iter().enumerate().flat_map(with).collect()
    }
}

pub mod frontier {
    use super::*;
    use modeloci::layer::{Opened, open};

    /// A gzip layer of a file of megabytes, damaged or not, read by two readers at once while it is
    /// decoded as far as they get: as in `foreign_layer`, at full size.
    pub fn run(data: &[u8]) {
        let Some(([members, level, seed, size, kind], damage)) = data.split_first_chunk::<5>()
        else {
            return;
        };
        let mut random = Random::new(u64::from(*seed), 1);
        let size = (2 << 20) + usize::from(*size) * 24_001;
        let tar = Tar::new()
            .file(NAME, &content(*kind, size, &mut random))
            .end();
        let mut blob = Vec::new();
        for piece in tar.chunks(tar.len() / usize::from(members % 4 + 1) + 1) {
            let level = flate2::Compression::new(u32::from(level % 4));
            let mut encoder = flate2::write::GzEncoder::new(&mut blob, level);
            std::io::Write::write_all(&mut encoder, piece).unwrap();
            encoder.finish().unwrap();
        }
        // Each piece of damage: where, in 2^-16 of the blob, and what.
        for [high, low, change] in damage.as_chunks::<3>().0 {
            let at = usize::from(u16::from_be_bytes([*high, *low])) * blob.len() / 65_536;
            match change {
                0 => blob.truncate(at),
                change => blob[at] ^= change,
            }
            if blob.len() < 18 {
                return;
            }
        }
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let spec = spec(media_type, &blob);
        let (file, attr) = match open(super::blob(&blob), spec, context(16 << 20)) {
            Ok(Opened::File(file, attributes)) => (file, *attributes.shown()),
            Ok(Opened::Link(_) | Opened::Directory | Opened::Members) => return,
            Err(error) => return assert!(is_damage(&error), "{error}"),
        };
        std::thread::scope(|scope| {
            let other = Arc::clone(&file);
            let mut second = Random::new(u64::from(*seed), 2);
            let second = scope.spawn(move || {
                let mut found = Vec::new();
                read_pieces(&*other, &mut second, |offset, len, read| {
                    // A copy: what a reader holds on to, it holds with the whole span.
                    found.push((offset, len, read.map(|piece| piece.to_vec())));
                });
                found
            });
            check_foreign(&*file, attr, &blob, media_type, &mut random);
            for (offset, len, read) in second.join().expect("a reader") {
                // What two readers get is the same.
                if let (Ok(piece), Ok(again)) = (read, file.read_at(offset, len)) {
                    assert!(again == piece, "two reads differ");
                }
            }
        });
    }

    /// Content that compresses in one of several ways.
    fn content(kind: u8, size: usize, random: &mut Random) -> Vec<u8> {
        let period = 1 + random.below(70_000);
        let unit: Vec<u8> = match kind % 4 {
            0 => vec![0; period],
            1 => (0..period).map(|_| random.next() as u8).collect(),
            2 => (0..period).map(|_| b"etaoin sh"[random.below(9)]).collect(),
            _ => (0..period).map(|i| (i >> 8) as u8).collect(),
        };
        let mut content = unit.repeat(size / period + 1);
        content.truncate(size);
        content
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            vec![0, 1, 1, 10, 1],
            vec![2, 2, 2, 255, 2],
            vec![3, 3, 3, 120, 3, 0x80, 0, 1],
            vec![1, 1, 4, 200, 0, 0xff, 0xff, 0x10],
            vec![0, 0, 5, 90, 1, 0xf0, 0, 0],
        ]
    }
}

pub mod chunked_layer {
    use super::*;
    use modeloci::codec::Encoded;
    use modeloci::layer::table::{ChunkTable, Framing, Header, TableBuilder};
    use modeloci::layer::wrap::{unwrap, wrap};
    use modeloci::layer::{Opened, open};
    use modeloci::oci::annotations;
    use modeloci::oci::stated::{StatedTable, TablePlace};

    /// Any table and data under right digests: reads agree with each other, and when the layer
    /// verifies, with what a reader finds that knows nothing of the table.
    pub fn run(data: &[u8]) {
        let Some(([options, seed, high, low], data)) = data.split_first_chunk::<4>() else {
            return;
        };
        let cut = usize::from(u16::from_be_bytes([*high, *low])).min(data.len());
        let (table, data) = data.split_at(cut);
        let parsed = ChunkTable::parse(Bytes::copy_from_slice(table), u64::MAX, "layer").ok();
        let table = match &parsed {
            Some(parsed) if options & 1 == 0 => sealed(parsed, data),
            _ => table.to_vec(),
        };
        let header = parsed.map(|table| *table.header());
        let framing = header.map_or(Framing::Gzip, |header| header.framing);
        let (members, length) = wrap(framing, &table, data.len() as u64);
        let blob = [data, &members].concat();
        let mut spec = spec("application/vnd.oci.image.layer.v1.tar+gzip", &blob);
        let size = header.map_or(1, |header| header.file_size);
        let place = match framing {
            Framing::Plain => {
                spec.table = Some(super::blob(&table));
                TablePlace::Blob
            }
            _ => TablePlace::Members(data.len() as u64, length),
        };
        let stated = Arc::make_mut(&mut spec.stated);
        stated.file_size = Some(size);
        stated.chunks = Some(StatedTable {
            digest: Digest::sha256(&table),
            place,
        });
        let file = match open(super::blob(&blob), spec, context(1 << 20)) {
            Ok(Opened::File(file, _)) => file,
            Ok(Opened::Link(_) | Opened::Directory | Opened::Members) => {
                panic!("a link with a chunk table")
            }
            Err(error) => return assert!(is_damage(&error), "{error}"),
        };
        let mut random = Random::new(u64::from(*seed), 0);
        let (mut pieces, mut failed) = (Vec::new(), false);
        read_pieces(&*file, &mut random, |offset, len, read| match read {
            Ok(piece) => pieces.push((offset, len, piece.to_vec())),
            Err(error) => {
                assert!(is_damage(&error), "{error}");
                failed = true;
            }
        });
        let Ok(digest) = file.verify(&[]).map(|digests| digests.sha256) else {
            return;
        };
        assert!(!failed, "a read of a sound layer failed");
        let stream = match framing {
            Framing::Gzip => reference::first_member(&blob),
            Framing::Zstd | Framing::Plain => reference::decompress(&blob),
        };
        let whole = match stream.is_tar() {
            true => stream.file().expect("a file that tar finds").bytes,
            false => stream.bytes,
        };
        assert_eq!(digest, Digest::sha256(&whole), "table and stream differ");
        for (offset, len, piece) in pieces {
            assert_piece(&whole, whole.len() as u64, offset, len, &piece);
        }
    }

    /// The table with the digests of what is really there.
    fn sealed(table: &ChunkTable, data: &[u8]) -> Vec<u8> {
        let header = table.header();
        let mut builder = TableBuilder::new();
        for row in (0..table.segments()).filter_map(|number| table.row(number)) {
            let start = usize::try_from(row.offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let end = start.saturating_add(row.length as usize).min(data.len());
            let encoded = Encoded {
                kind: row.kind,
                sub_offsets: row.sub_offsets,
            };
            let digest = Digest::of(header.algorithm, &data[start..end]);
            builder.push(row.offset, row.length, encoded, &digest);
        }
        let end = usize::try_from(header.data_size)
            .unwrap_or(usize::MAX)
            .min(data.len());
        builder.finish(&Header {
            data_digest: Digest::sha256(&data[..end]),
            ..*header
        })
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let with = |(framing, table, data): &(Framing, Vec<u8>, Vec<u8>)| {
            let (high, low) = ((table.len() >> 8) as u8, table.len() as u8);
            let front = [*framing as u8 * 2, 7, high, low];
            [&front, &table[..], data].concat()
        };
        tables().iter().map(with).collect()
    }

    /// Chunk tables as `pack` writes them, or once did, and what they are about.
    pub(super) fn tables() -> Vec<(Framing, Vec<u8>, Vec<u8>)> {
        let blobs = model::packed_layers(NAME);
        let table = |(descriptor, blob, table): (Descriptor, Vec<u8>, Option<Vec<u8>>)| {
            if let Some(table) = table {
                return (Framing::Plain, table, blob);
            }
            let range = descriptor
                .annotation(annotations::CHUNKS_RANGE)
                .expect("a range");
            let (offset, length) = range.split_once('+').expect("a range");
            let (offset, length): (usize, usize) =
                (offset.parse().unwrap(), length.parse().unwrap());
            let framing = match blob[0] {
                0x1f => Framing::Gzip,
                _ => Framing::Zstd,
            };
            let members = &blob[offset..offset + length];
            (
                framing,
                unwrap(framing, members).expect("a table"),
                blob[..offset].to_vec(),
            )
        };
        blobs.into_iter().map(table).collect()
    }
}

pub mod chunk_table {
    use super::*;
    use modeloci::layer::table::{ChunkTable, Framing};
    use modeloci::layer::wrap::unwrap;

    /// Parsing a chunk table never panics, and one that is accepted tiles its data and its tar.
    pub fn run(data: &[u8]) {
        for framing in [Framing::Gzip, Framing::Zstd, Framing::Plain] {
            let _ = unwrap(framing, data);
        }
        let Ok(table) = ChunkTable::parse(Bytes::copy_from_slice(data), u64::MAX, "layer") else {
            return;
        };
        let header = table.header();
        let (mut at, mut decoded) = (header.framing.start(), 0);
        for segment in 0..table.segments() {
            let row = table.row(segment).expect("every segment has a row");
            assert_eq!(row.offset, at);
            at += u64::from(row.length);
            decoded += table.decoded_len(segment);
        }
        assert_eq!(at + header.framing.end(), header.data_size);
        assert_eq!(decoded, header.tar_size);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        chunked_layer::tables()
            .into_iter()
            .map(|(_, table, _)| table)
            .collect()
    }
}

pub mod index_file {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use modeloci::layer::{Opened, foreign::open_in_miniature};

    use super::*;

    /// A layer that is read with an index.
    struct Indexed {
        blob: Vec<u8>,
        content: Vec<u8>,
        media_type: &'static str,
        /// Where the index is kept, its file there, and what it is when nobody has changed it.
        dir: tempfile::TempDir,
        file: PathBuf,
        index: Vec<u8>,
    }

    impl Indexed {
        fn new(blob: Vec<u8>, content: &[u8], media_type: &'static str) -> Indexed {
            let dir = tempfile::tempdir().expect("a directory");
            let mut indexed = Indexed {
                blob,
                content: content.to_vec(),
                media_type,
                dir,
                file: PathBuf::new(),
                index: Vec::new(),
            };
            let file = indexed.open().expect("an honest layer");
            file.verify(&[]).expect("an honest layer");
            let tables = fs::read_dir(indexed.dir.path().join("seek-tables"));
            indexed.file = tables
                .expect("a directory of indexes")
                .map(|entry| entry.expect("an entry").path())
                .find(|path| path.extension().is_some_and(|ext| ext == "idx"))
                .expect("an index");
            indexed.index = fs::read(&indexed.file).expect("an index");
            indexed
        }

        fn open(&self) -> modeloci::Result<Arc<dyn FileReader>> {
            let cache = Arc::new(LruChunkCache::new(64 << 10));
            let dir = Some(self.dir.path().to_path_buf());
            let context = Arc::new(Context::new(cache, dir, 0));
            let spec = spec(self.media_type, &self.blob);
            match open_in_miniature(blob(&self.blob), spec, context)? {
                Opened::File(file, attributes) => {
                    assert_eq!(attributes.shown().size, self.content.len() as u64);
                    Ok(file)
                }
                Opened::Link(_) | Opened::Directory | Opened::Members => panic!("no file"),
            }
        }
    }

    thread_local! {
        /// Of each thread, so that the directories end with it: what is static is never dropped.
        static LAYERS: [Indexed; 3] = layers();
    }

    fn layers() -> [Indexed; 3] {
        let mut content = b"a model's weights: ".repeat(8_000);
        content.extend(super::super::super::forge::noise(6, 150_000));
        let header = Header::file(NAME, content.len() as u64);
        let tar = Tar::new().entry(header, &content).end();
        let frames = tar.chunks(70_000);
        let frames = frames.flat_map(|piece| zstd::encode_all(piece, 1).expect("zstd"));
        let gz = "application/vnd.oci.image.layer.v1.tar+gzip";
        let zst = "application/vnd.oci.image.layer.v1.tar+zstd";
        [
            Indexed::new(gzip(&tar), &content, gz),
            Indexed::new(frames.collect(), &content, zst),
            Indexed::new(
                tar.clone(),
                &content,
                "application/vnd.oci.image.layer.v1.tar",
            ),
        ]
    }

    /// With an index that is not whole a layer has its exact bytes, as without. One that is whole is
    /// trusted like the directory that it lies in: a lie in it is an error, or other bytes of the
    /// same length, and never a panic.
    pub fn run(data: &[u8]) {
        let Some((which, index)) = data.split_first() else {
            return;
        };
        LAYERS.with(|layers| check(&layers[usize::from(*which) % layers.len()], *which, index));
    }

    fn check(layer: &Indexed, which: u8, index: &[u8]) {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .create(true)
            .open(&layer.file)
            .expect("the index");
        file.write_all(index).expect("the index");
        let written = file.metadata().expect("the index").ino();
        drop(file);
        let honest = index == layer.index || !is_whole(index);
        let mut random = Random::new(u64::from(which), index.len() as u64);
        let file = layer.open().expect("an honest layer");
        let size = layer.content.len() as u64;
        read_pieces(&*file, &mut random, |offset, len, read| match read {
            Ok(piece) if honest => assert_piece(&layer.content, size, offset, len, &piece),
            Ok(piece) => assert_piece(&[], size, offset, len, &piece),
            Err(error) => assert!(!honest && is_damage(&error), "{error}"),
        });
        if index == layer.index {
            let found = fs::metadata(&layer.file).expect("the index").ino();
            assert_eq!(found, written, "it was not used, and made anew");
        }
        // Which looks at all of it, whatever was known before.
        let digest = file.verify(&[]).expect("an honest layer").sha256;
        assert_eq!(digest, Digest::sha256(&layer.content));
    }

    fn is_whole(index: &[u8]) -> bool {
        let body = index.len().saturating_sub(32);
        let (body, trailer) = index.split_at(body);
        trailer == Digest::sha256(body).as_bytes()
    }

    /// The indexes of honest layers.
    pub fn seeds() -> Vec<Vec<u8>> {
        LAYERS.with(|layers| {
            let layers = layers.iter().zip(0u8..);
            layers
                .map(|(layer, which)| [&[which], &layer.index[..]].concat())
                .collect()
        })
    }
}
