//! Forges archives byte by byte: what no honest writer writes.

use std::io::{Read as _, Write as _};
use std::path::Path;

use modeloci::Digest;
use serde_json::{Value, json};

pub(crate) const BLOCK: usize = 512;

/// A tar header that can be given any content.
#[derive(Clone)]
pub(crate) struct Header([u8; BLOCK]);

impl Header {
    /// A ustar header of a regular file.
    pub(crate) fn file(name: impl AsRef<[u8]>, size: u64) -> Header {
        Header([0; BLOCK])
            .put(0, name.as_ref())
            .put(100, b"0000644\0")
            .put(108, b"0000000\0")
            .put(116, b"0000000\0")
            .put(124, format!("{size:011o}\0").as_bytes())
            .put(136, b"00000000000\0")
            .put(156, b"0")
            .put(257, b"ustar\x0000")
    }

    /// Overwrites bytes at an offset.
    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn kind(self, flag: u8) -> Header {
        self.put(156, &[flag])
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Header {
        self.put(157, target.as_ref())
    }

    /// The block with its checksum.
    pub(crate) fn seal(self) -> [u8; BLOCK] {
        let blank = self.put(148, b"        ");
        let sum: u32 = blank.0.iter().map(|b| u32::from(*b)).sum();
        blank.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// A tar under construction.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    /// A header as it is, followed by data and their padding.
    pub(crate) fn entry(mut self, header: Header, data: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.seal());
        self.data(data)
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Tar {
        let name = name.as_ref();
        let size = data.len() as u64;
        match name.get(..100) {
            None => self.entry(Header::file(name, size), data),
            Some(start) => {
                let path = std::str::from_utf8(name).unwrap();
                self.pax("path", path)
                    .entry(Header::file(start, size), data)
            }
        }
    }

    /// An extension header: `x`, `g`, `L` or `K`.
    pub(crate) fn extension(self, flag: u8, data: &[u8]) -> Tar {
        let name = if matches!(flag, b'L' | b'K') {
            "././@LongLink"
        } else {
            "PaxHeaders/x"
        };
        self.entry(Header::file(name, data.len() as u64).kind(flag), data)
    }

    pub(crate) fn pax(self, key: &str, value: &str) -> Tar {
        self.extension(b'x', record(key, value).as_bytes())
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive with the two zero blocks of its end.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }
}

/// A pax record.
pub(crate) fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length += 1;
    }
    format!("{length}{rest}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer as other tools write it: tar and gzip, one file.
pub(crate) fn layer(path: &str, content: &[u8]) -> Vec<u8> {
    let name = path.rsplit('/').next().unwrap();
    gzip(&Tar::new().file(name, content).end())
}

pub(crate) const TITLE: &str = "org.opencontainers.image.title";
pub(crate) const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.modeloci.config.v1+json";

/// Bytes that do not compress; the seed makes them different.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

/// Xorshift: the same numbers on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// The files of [`Layout::sample`], in path order.
pub(crate) fn sample_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a.bin", noise(0x5eed, 5000)),
        ("dir/b.txt", b"hostile\n".repeat(300)),
        ("empty", Vec::new()),
    ]
}

/// The entries of an archive: names and bytes, in order. The edits keep everything else true, so
/// that an archive breaks the one rule that a test is about.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) entries: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// A valid archive of [`sample_files`] with layers that have no chunk table.
    pub(crate) fn sample() -> Layout {
        let files = sample_files();
        Layout::of(files.iter().map(|(path, content)| (*path, &content[..])))
    }

    /// A valid archive of any files, whose paths are taken as they are.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Layout {
        Layout::of_layers(
            files
                .into_iter()
                .map(|(path, content)| (path, layer(path, content))),
        )
    }

    /// A valid archive but for what is in the layers.
    pub(crate) fn of_layers<'a>(layers: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Layout {
        let config = json!({
            "model_name": "sample", "version": "1.0", "framework": "onnx",
            "architecture": "mlp", "metadata": {}
        });
        let config = serde_json::to_vec(&config).unwrap();
        let mut entries = Vec::new();
        let mut descriptors = Vec::new();
        for (path, blob) in layers {
            let mut descriptor = descriptor(TAR_GZIP, &blob);
            descriptor["annotations"] = json!({ TITLE: path });
            descriptors.push(descriptor);
            entries.push((blob_name(&blob), blob));
        }
        entries.dedup();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": descriptors,
        });
        entries.push((blob_name(&config), config.clone()));
        entries.push((
            "oci-layout".into(),
            b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec(),
        ));
        entries.push(("index.json".into(), Vec::new()));
        entries.push(("config.json".into(), config));
        entries.push(("manifest.json".into(), Vec::new()));
        let mut layout = Layout { entries };
        layout.set_manifest(serde_json::to_vec(&manifest).unwrap());
        layout
    }

    /// The entries of an archive that something else wrote.
    pub(crate) fn parse(archive: &[u8]) -> Layout {
        let mut entries = Vec::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                let mut blobs = entries.iter();
                let blob = blobs.find(|(name, _)| target == Path::new(name));
                let (_, blob): &(String, Vec<u8>) = blob.unwrap();
                bytes.clone_from(blob);
            }
            entries.push((name, bytes));
        }
        Layout { entries }
    }

    pub(crate) fn get(&self, name: &str) -> &[u8] {
        let found = self.entries.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("no entry {name}")).1
    }

    /// Replaces an entry's bytes, or appends one.
    pub(crate) fn set(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        match self.entries.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = bytes,
            None => self.entries.push((name.into(), bytes)),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.entries.retain(|(n, _)| n != name);
    }

    /// Adds a blob under its true digest; returns its name.
    pub(crate) fn add_blob(&mut self, blob: &[u8]) -> String {
        let name = blob_name(blob);
        self.set(&name, blob);
        name
    }

    pub(crate) fn manifest(&self) -> Value {
        serde_json::from_slice(self.get("manifest.json")).unwrap()
    }

    pub(crate) fn manifest_digest(&self) -> String {
        digest(self.get("manifest.json"))
    }

    /// The manifest's bytes, whatever they are: as blob, at the root and in the index.
    pub(crate) fn set_manifest(&mut self, bytes: Vec<u8>) {
        let old = blob_name(self.get("manifest.json"));
        self.remove(&old);
        self.add_blob(&bytes);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor(MANIFEST, &bytes)],
        });
        self.set("index.json", serde_json::to_vec(&index).unwrap());
        self.set("manifest.json", bytes);
    }

    pub(crate) fn edit_manifest(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        edit(&mut manifest);
        self.set_manifest(serde_json::to_vec(&manifest).unwrap());
    }

    pub(crate) fn edit_index(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut index: Value = serde_json::from_slice(self.get("index.json")).unwrap();
        edit(&mut index);
        self.set("index.json", serde_json::to_vec(&index).unwrap());
    }

    /// The name of a layer's blob.
    pub(crate) fn layer_name(&self, number: usize) -> String {
        let digest = self.layer_digest(number);
        format!("blobs/{}", digest.replace(':', "/"))
    }

    pub(crate) fn layer_digest(&self, number: usize) -> String {
        let manifest = self.manifest();
        let digest = &manifest["layers"][number]["digest"];
        digest.as_str().unwrap().to_string()
    }

    /// Damages a blob without changing its name.
    pub(crate) fn damage(&mut self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.get(name).to_vec();
        damage(&mut bytes);
        self.set(name, bytes);
    }

    pub(crate) fn tar(&self) -> Tar {
        let entries = self.entries.iter();
        entries.fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.tar().end()
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

pub(crate) fn blob_name(bytes: &[u8]) -> String {
    Digest::sha256(bytes).blob_path()
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}
