#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use modeloci_test_support::noise;
use serde_json::{Value, json};

use super::archive::Archive;
use super::describe::Description;
use super::plan::Settings;
use super::select::Selection;
use super::walk::Skip;
use super::*;
use crate::codec::Compression;
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::limits;
use crate::oci::OciConfig;

mod add;
mod calls;
mod content;
mod faults;
mod formats;
mod hub;
mod names;
mod races;
mod reproducible;
mod select;
mod share;

fn config() -> OciConfig {
    OciConfig::new(
        "tiny",
        "1.0.0",
        "pytorch",
        "transformer",
        Default::default(),
    )
    .unwrap()
}

fn about() -> Description {
    Description {
        config: config(),
        annotations: Default::default(),
        found: Vec::new(),
    }
}

/// Small chunks, so that small files have several.
fn options() -> PackOptions {
    PackOptions {
        chunk_size: limits::MIN_CHUNK_BYTES,
        ..PackOptions::default()
    }
}

/// A directory with a model in `model/`.
fn scratch(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("model")).unwrap();
    for (path, bytes) in files {
        let path = dir.path().join("model").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// Packs `model/` into `out.tar`.
fn pack_in(dir: &Path, options: &PackOptions) -> Result<Packed> {
    let output = Output::File(dir.join("out.tar"));
    pack(&dir.join("model"), &config(), &output, options, &|_, _| {})
}

/// The entries of a tar, in their order, as the `tar` crate reads them.
fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ::tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().uid().unwrap(), 0);
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry.link_name_bytes().map(|link| link.to_vec());
        assert_eq!(link.is_some(), path == "manifest.json", "{path}");
        let kind = match link {
            Some(_) => ::tar::EntryType::Link,
            None => ::tar::EntryType::Regular,
        };
        assert_eq!(entry.header().entry_type(), kind);
        (path, content, link)
    });
    let entries: Vec<_> = entries.collect();
    let blob = |link: &[u8]| {
        let found = entries.iter().find(|(path, ..)| path.as_bytes() == link);
        found.unwrap().1.clone()
    };
    let resolved = entries.iter().map(|(path, content, link)| match link {
        Some(link) => (path.clone(), blob(link)),
        None => (path.clone(), content.clone()),
    });
    resolved.collect()
}

/// An archive that was written, with what its documents say checked.
struct Written {
    entries: BTreeMap<String, Vec<u8>>,
    order: Vec<String>,
    manifest: Value,
}

impl Written {
    fn read(path: &Path) -> Written {
        Written::parse(&fs::read(path).unwrap())
    }

    fn parse(bytes: &[u8]) -> Written {
        let list = entries(bytes);
        let order: Vec<String> = list.iter().map(|(path, _)| path.clone()).collect();
        let entries: BTreeMap<_, _> = list.into_iter().collect();
        assert_eq!(entries.len(), order.len(), "an entry stands twice");
        for (path, content) in &entries {
            if let Some(digest) = Digest::from_blob_path(path) {
                assert_eq!(Digest::of(digest.algorithm(), content), digest);
            }
        }
        assert_eq!(entries["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index: Value = serde_json::from_slice(&entries["index.json"]).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        let descriptor = &index["manifests"][0];
        let manifest = &entries["manifest.json"];
        assert_eq!(descriptor["digest"], Digest::sha256(manifest).to_string());
        assert_eq!(descriptor["size"], manifest.len());
        assert_eq!(&entries[&Digest::sha256(manifest).blob_path()], manifest);
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let written = Written {
            entries,
            order,
            manifest,
        };
        assert_eq!(
            written.blob(&written.manifest["config"]),
            written.entries["config.json"]
        );
        for layer in written.layers() {
            written.blob(layer);
        }
        written
    }

    fn layers(&self) -> &[Value] {
        self.manifest["layers"].as_array().unwrap()
    }

    /// The blob that a descriptor names.
    fn blob(&self, descriptor: &Value) -> &[u8] {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let blob = &self.entries[&digest.blob_path()];
        assert_eq!(descriptor["size"], blob.len());
        blob
    }

    fn titles(&self) -> Vec<&str> {
        let titles = self.layers().iter().map(|layer| {
            let annotations = &layer["annotations"];
            let title = &annotations["org.opencontainers.image.title"];
            assert_eq!(*title, annotations["org.cncf.model.filepath"]);
            title.as_str().unwrap()
        });
        titles.collect()
    }
}

fn problem(result: Result<Packed>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}");
    error.to_string()
}

/// The names in a directory.
fn listing(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn model_of(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("model")
}
