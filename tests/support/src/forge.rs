//! Forges archives byte by byte: what no honest writer writes.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

pub use crate::random::{Random, noise};

pub const BLOCK: usize = 512;

/// A tar header that can be given any content.
#[derive(Clone)]
pub struct Header([u8; BLOCK]);

impl Header {
    /// A ustar header of a regular file.
    pub fn file(name: impl AsRef<[u8]>, size: u64) -> Header {
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
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn kind(self, flag: u8) -> Header {
        self.put(156, &[flag])
    }

    pub fn link(self, target: impl AsRef<[u8]>) -> Header {
        self.put(157, target.as_ref())
    }

    /// The block with its checksum.
    pub fn seal(self) -> [u8; BLOCK] {
        let blank = self.put(148, b"        ");
        let sum: u32 = blank.0.iter().map(|b| u32::from(*b)).sum();
        blank.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// A header as it is, followed by data and their padding.
    pub fn entry(mut self, header: Header, data: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.seal());
        self.data(data)
    }

    pub fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Tar {
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
    pub fn extension(self, flag: u8, data: &[u8]) -> Tar {
        let name = if matches!(flag, b'L' | b'K') {
            "././@LongLink"
        } else {
            "PaxHeaders/x"
        };
        self.entry(Header::file(name, data.len() as u64).kind(flag), data)
    }

    pub fn pax(self, key: &str, value: &str) -> Tar {
        self.extension(b'x', record(key, value).as_bytes())
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive with the two zero blocks of its end.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }
}

/// A pax record.
pub fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length += 1;
    }
    format!("{length}{rest}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    crate::compressed::gzip(bytes, 6)
}

/// A layer as other tools write it: tar and gzip, one file.
pub fn layer(path: &str, content: &[u8]) -> Vec<u8> {
    let name = path.rsplit('/').next().unwrap();
    gzip(&Tar::new().file(name, content).end())
}

pub const TITLE: &str = "org.opencontainers.image.title";
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.modeloci.config.v1+json";

/// The files of [`Layout::sample`], in path order.
pub fn sample_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a.bin", noise(0x5eed, 5000)),
        ("dir/b.txt", b"hostile\n".repeat(300)),
        ("empty", Vec::new()),
    ]
}

/// The entries of an archive: names and bytes, in order. The edits keep everything else true, so
/// that an archive breaks the one rule that a test is about.
#[derive(Clone)]
pub struct Layout {
    pub entries: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// A valid archive of [`sample_files`] with layers that have no chunk table.
    pub fn sample() -> Layout {
        let files = sample_files();
        Layout::of(files.iter().map(|(path, content)| (*path, &content[..])))
    }

    /// A valid archive of any files, whose paths are taken as they are.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Layout {
        Layout::of_layers(
            files
                .into_iter()
                .map(|(path, content)| (path, layer(path, content))),
        )
    }

    /// A valid archive but for what is in the layers.
    pub fn of_layers<'a>(layers: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Layout {
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
    pub fn parse(archive: &[u8]) -> Layout {
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

    pub fn get(&self, name: &str) -> &[u8] {
        let found = self.entries.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("no entry {name}")).1
    }

    /// Replaces an entry's bytes, or appends one.
    pub fn set(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        match self.entries.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = bytes,
            None => self.entries.push((name.into(), bytes)),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|(n, _)| n != name);
    }

    /// Adds a blob under its true digest; returns its name.
    pub fn add_blob(&mut self, blob: &[u8]) -> String {
        let name = blob_name(blob);
        self.set(&name, blob);
        name
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(self.get("manifest.json")).unwrap()
    }

    pub fn manifest_digest(&self) -> String {
        digest(self.get("manifest.json"))
    }

    /// The manifest's bytes, whatever they are: as blob, at the root and in the index.
    pub fn set_manifest(&mut self, bytes: Vec<u8>) {
        let old = self.get("manifest.json");
        if !old.is_empty() {
            let old = blob_name(old);
            self.remove(&old);
        }
        self.add_blob(&bytes);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor(MANIFEST, &bytes)],
        });
        self.set("index.json", serde_json::to_vec(&index).unwrap());
        self.set("manifest.json", bytes);
    }

    pub fn edit_manifest(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        edit(&mut manifest);
        self.set_manifest(serde_json::to_vec(&manifest).unwrap());
    }

    pub fn edit_index(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut index: Value = serde_json::from_slice(self.get("index.json")).unwrap();
        edit(&mut index);
        self.set("index.json", serde_json::to_vec(&index).unwrap());
    }

    /// The name of a layer's blob.
    pub fn layer_name(&self, number: usize) -> String {
        let digest = self.layer_digest(number);
        format!("blobs/{}", digest.replace(':', "/"))
    }

    pub fn layer_digest(&self, number: usize) -> String {
        let manifest = self.manifest();
        let digest = &manifest["layers"][number]["digest"];
        digest.as_str().unwrap().to_string()
    }

    /// Damages a blob without changing its name.
    pub fn damage(&mut self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.get(name).to_vec();
        damage(&mut bytes);
        self.set(name, bytes);
    }

    pub fn tar(&self) -> Tar {
        let entries = self.entries.iter();
        entries.fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.tar().end()
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", crate::sha256(bytes))
}

pub fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", crate::sha256(bytes))
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}
