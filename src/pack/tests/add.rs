//! Adding a layer.

use modeloci_test_support::compressed::gzip;

use super::*;
use crate::model::{Model, OpenOptions};

/// A packed model in `out.tar`, and a file to add.
fn packed(compression: Compression) -> tempfile::TempDir {
    let dir = scratch(&[("b", &noise(1, 200_000)), ("d/e", b"text")]);
    let options = PackOptions {
        compression,
        ..options()
    };
    pack_in(dir.path(), &options).unwrap();
    fs::write(dir.path().join("extra"), b"extra bytes").unwrap();
    dir
}

fn add(dir: &tempfile::TempDir, title: Option<&str>, options: &PackOptions) -> Result<Packed> {
    let archive = dir.path().join("out.tar");
    add_layer(&archive, &dir.path().join("extra"), title, options)
}

/// An archive that was changed is the one that packing `model` now gives, and nothing else is there.
fn is_as_if_packed(dir: &tempfile::TempDir, changed: &Packed, options: &PackOptions) {
    let result = fs::read(dir.path().join("out.tar")).unwrap();
    assert_eq!(changed.archive_bytes, result.len() as u64);
    assert_eq!(listing(dir.path()), ["extra", "model", "out.tar"]);
    let force = PackOptions {
        force: true,
        ..options.clone()
    };
    let together = pack_in(dir.path(), &force).unwrap();
    assert_eq!(together.manifest_digest, changed.manifest_digest);
    assert!(result == fs::read(dir.path().join("out.tar")).unwrap());
}

#[test]
fn is_what_packing_all_together_gives() {
    for compression in [Compression::Auto, Compression::Zstd(3), Compression::None] {
        for title in ["a", "c", "d/a", "z/z"] {
            let options = PackOptions {
                compression,
                ..options()
            };
            let dir = packed(compression);
            let added = add(&dir, Some(title), &options).unwrap();
            assert_eq!((added.files, added.file_bytes), (3, 200_015));

            let target = model_of(&dir).join(title);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(dir.path().join("extra"), target).unwrap();
            is_as_if_packed(&dir, &added, &options);
        }
    }
}

#[test]
fn the_title_is_the_base_name() {
    let dir = packed(Compression::Auto);
    add(&dir, None, &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.titles(), ["b", "d/e", "extra"]);
}

#[test]
fn to_a_model_without_files() {
    let dir = scratch(&[]);
    pack_in(dir.path(), &options()).unwrap();
    fs::write(dir.path().join("extra"), b"extra bytes").unwrap();
    add(&dir, None, &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.titles(), ["extra"]);
}

#[test]
fn p4_titles_that_collide() {
    let dir = packed(Compression::Auto);
    let before = fs::read(dir.path().join("out.tar")).unwrap();
    for (title, rule) in [
        ("b", "has a layer \"b\" already"),
        (
            "b/c",
            "has a layer \"b\", which cannot stand beside \"b/c\"",
        ),
        ("d", "has a layer \"d/e\", which cannot stand beside \"d\""),
    ] {
        let text = problem(add(&dir, Some(title), &options()));
        assert!(text.ends_with(rule), "{text}");
    }
    for title in ["", "/abs", "../up", "a//b", "new\nline"] {
        let error = add(&dir, Some(title), &options()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage, "{title:?}");
    }
    assert!(fs::read(dir.path().join("out.tar")).unwrap() == before);
    assert_eq!(listing(dir.path()), ["extra", "model", "out.tar"]);
}

#[test]
fn k4_a_fifo_is_refused_without_blocking() {
    let dir = packed(Compression::Auto);
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let result = add_layer(&dir.path().join("out.tar"), &fifo, None, &options());
    assert!(problem(result).ends_with("fifo: is not a regular file"));
}

#[test]
fn k4_a_layout_directory_is_no_archive_that_can_be_changed() {
    let dir = packed(Compression::Auto);
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let rule = "store: is a directory; only archives, which are one file, can be changed: pack the \
                model again";
    let result = add_layer(&store, &dir.path().join("extra"), None, &options());
    assert!(problem(result).ends_with(rule));
    let result = remove_layer(&store, "b", &options());
    assert!(problem(result).ends_with(rule));
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
}

#[test]
fn d3_a_damaged_blob_is_not_carried_over() {
    let dir = packed(Compression::Auto);
    let path = dir.path().join("out.tar");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = add(&dir, None, &options()).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
    assert!(
        fs::read(&path).unwrap() == bytes,
        "the archive stays as it was"
    );
}

#[test]
fn keeps_owner_permissions_links_and_the_reference_name() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    let dir = packed(Compression::Auto);
    let path = dir.path().join("out.tar");
    // Only root may give a file away; for others this changes nothing.
    let owner = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let _ = chown(&path, Some(4321), Some(1234));
    let before = owner(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("out.tar", dir.path().join("link.tar")).unwrap();
    let link = dir.path().join("link.tar");
    add_layer(&link, &dir.path().join("extra"), None, &options()).unwrap();
    assert!(link.is_symlink());
    assert_eq!(owner(&path), before);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let written = Written::read(&path);
    assert_eq!(written.layers().len(), 3);
    let index: Value = serde_json::from_slice(&written.entries["index.json"]).unwrap();
    assert_eq!(
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
        "1.0.0"
    );
}

/// The original tool's archive: snake-case keys, no index, a nameless directory entry.
#[test]
fn an_archive_of_the_original_tool_becomes_an_image_layout() {
    let config = br#"{"model_name": "old", "version": "2.0", "framework": "f", "architecture": "a", "metadata": {}}"#;
    let layer = layer_of("weights.bin", b"old", None);
    let manifest = json!({
        "schema_version": 2,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "media_type": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::sha256(config).to_string(),
            "size": config.len()
        },
        "layers": [{
            "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": Digest::sha256(&layer).to_string(),
            "size": layer.len(),
            "annotations": {"org.opencontainers.image.title": "weights.bin"}
        }],
        "annotations": {}
    });
    let mut outer = ::tar::Builder::new(Vec::new());
    let mut put = |path: &str, bytes: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        outer.append_data(&mut header, path, bytes).unwrap();
    };
    put(&Digest::sha256(&layer).blob_path(), &layer);
    put(&Digest::sha256(config).blob_path(), config);
    put("config.json", config);
    put("manifest.json", manifest.to_string().as_bytes());
    let dir = scratch(&[]);
    fs::write(dir.path().join("out.tar"), outer.into_inner().unwrap()).unwrap();
    fs::write(dir.path().join("extra"), b"extra bytes").unwrap();

    add(&dir, None, &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.layers().len(), 2);
    assert_eq!(written.blob(&written.layers()[1]), layer);
    assert_eq!(written.entries["config.json"], config);
    assert_eq!(
        written.manifest["config"]["mediaType"],
        "application/vnd.modeloci.config.v1+json"
    );
    let index: Value = serde_json::from_slice(&written.entries["index.json"]).unwrap();
    assert_eq!(
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
        "2.0"
    );
}

/// Archives that the original tool wrote.
#[test]
fn archives_of_the_original_tool() {
    for name in ["added-1.0.0.tar", "zero-1.0.0.tar"] {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/original");
        let dir = scratch(&[]);
        let archive = dir.path().join("out.tar");
        fs::copy(data.join(name), &archive).unwrap();
        let source = crate::source::open(&archive).unwrap();
        let resolved = crate::model::resolve::resolve(&*source, None).unwrap();
        let manifest = resolved.documents(&*source).unwrap().manifest;
        let old: Vec<(String, Vec<u8>)> = entries_of(&manifest, &archive);
        fs::write(dir.path().join("extra"), b"extra bytes").unwrap();
        let added = add(&dir, Some("zz/extra"), &options()).unwrap();
        assert_eq!(added.files, old.len() as u64 + 1, "{name}");
        let written = Written::read(&archive);
        for (layer, (title, blob)) in written.layers().iter().zip(&old) {
            assert_eq!(
                layer["annotations"]["org.opencontainers.image.title"],
                **title
            );
            assert_eq!(written.blob(layer), blob);
        }
    }
}

/// Title and blob of each layer, by title.
fn entries_of(manifest: &crate::OciManifest, archive: &Path) -> Vec<(String, Vec<u8>)> {
    let source = crate::source::open(archive).unwrap();
    let layers = manifest.layers.iter().cloned().map(ModelLayer::from);
    let mut list: Vec<(String, Vec<u8>)> = layers
        .map(|layer| {
            let blob = source.blob(layer.digest(), None).unwrap().unwrap();
            let mut bytes = vec![0; blob.len() as usize];
            blob.read_exact_at(&mut bytes, 0).unwrap();
            (layer.title().to_string(), bytes)
        })
        .collect();
    list.sort();
    list
}

fn replace(dir: &tempfile::TempDir, title: &str, options: &PackOptions) -> Result<Packed> {
    let archive = dir.path().join("out.tar");
    replace_layer(&archive, &dir.path().join("extra"), Some(title), options)
}

fn remove(dir: &tempfile::TempDir, title: &str) -> Result<Packed> {
    remove_layer(&dir.path().join("out.tar"), title, &options())
}

#[test]
fn k25_a_layer_that_is_replaced_or_removed_leaves_nothing() {
    for compression in [Compression::Auto, Compression::Zstd(3), Compression::None] {
        let options = PackOptions {
            compression,
            ..options()
        };
        for title in ["b", "d/e", "new"] {
            let dir = packed(compression);
            let replaced = replace(&dir, title, &options).unwrap();
            let files = if title == "new" { 3 } else { 2 };
            assert_eq!(replaced.files, files, "{title}");
            fs::copy(dir.path().join("extra"), model_of(&dir).join(title)).unwrap();
            is_as_if_packed(&dir, &replaced, &options);
        }
        for title in ["b", "d/e"] {
            let dir = packed(compression);
            let removed = remove(&dir, title).unwrap();
            assert_eq!((removed.files, removed.layers.len()), (1, 1));
            fs::remove_file(model_of(&dir).join(title)).unwrap();
            let _ = fs::remove_dir(model_of(&dir).join("d"));
            is_as_if_packed(&dir, &removed, &options);
        }
    }
}

#[test]
fn k25_the_last_layer_may_be_removed() {
    let dir = packed(Compression::Auto);
    remove(&dir, "b").unwrap();
    let removed = remove(&dir, "d/e").unwrap();
    assert_eq!((removed.files, removed.file_bytes), (0, 0));
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.layers().len(), 1, "the empty descriptor");
    let model = Model::open(dir.path().join("out.tar"), &OpenOptions::default()).unwrap();
    assert_eq!(model.files().len(), 0);
    assert!(problem(remove(&dir, "b")).ends_with("has no layer \"b\""));
    assert_eq!(add(&dir, Some("b"), &options()).unwrap().files, 1);
}

#[test]
fn k25_what_cannot_be_removed_or_replaced_is_named_and_nothing_changes() {
    let dir = packed(Compression::Auto);
    let before = fs::read(dir.path().join("out.tar")).unwrap();
    for (title, rule) in [
        ("x", "has no layer \"x\""),
        ("d", "has no layer \"d\", but \"d/e\": one layer at a time"),
    ] {
        let text = problem(remove(&dir, title));
        assert!(text.ends_with(rule), "{text}");
    }
    for (title, rule) in [
        (
            "b/c",
            "has a layer \"b\", which cannot stand beside \"b/c\"",
        ),
        ("d", "has a layer \"d/e\", which cannot stand beside \"d\""),
    ] {
        let text = problem(replace(&dir, title, &options()));
        assert!(text.ends_with(rule), "{text}");
    }
    for title in ["", "/b", "../b", "b/"] {
        let error = remove(&dir, title).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage, "{title:?}");
    }
    assert!(fs::read(dir.path().join("out.tar")).unwrap() == before);
    assert_eq!(listing(dir.path()), ["extra", "model", "out.tar"]);
}

/// A damaged layer can be taken out or replaced; what is damaged elsewhere stays for `verify` to find.
#[test]
fn k25_what_is_carried_over_is_not_looked_at() {
    let damaged = || {
        let dir = packed(Compression::Auto);
        let path = dir.path().join("out.tar");
        let mut bytes = fs::read(&path).unwrap();
        bytes[100_000] ^= 1; // in the layer "b"
        fs::write(&path, &bytes).unwrap();
        (dir, bytes)
    };
    let fails = |dir: &tempfile::TempDir| {
        let model = Model::open(dir.path().join("out.tar"), &OpenOptions::default()).unwrap();
        let reports = crate::model::verify::verify(&model, 1, &|_, _| {});
        reports.iter().filter(|report| !report.verified()).count()
    };
    let (dir, bytes) = damaged();
    assert_eq!(fails(&dir), 1);
    remove(&dir, "d/e").unwrap();
    assert_eq!(fails(&dir), 1);
    let after = fs::read(dir.path().join("out.tar")).unwrap();
    assert!(after[..150_000] == bytes[..150_000]);
    remove(&dir, "b").unwrap();
    assert_eq!(fails(&dir), 0);
    let (dir, _) = damaged();
    replace(&dir, "b", &options()).unwrap();
    assert_eq!(fails(&dir), 0);
}

/// An archive of the original tool's kind, whose layers are these: title, media type, blob.
fn archive_of(dir: &Path, layers: &[(&str, &str, &[u8])]) {
    let config = br#"{"model_name": "old", "version": "2.0", "framework": "f", "architecture": "a", "metadata": {}}"#;
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|(title, media_type, layer)| {
            json!({
                "media_type": media_type,
                "digest": Digest::sha256(layer).to_string(),
                "size": layer.len(),
                "annotations": {"org.opencontainers.image.title": title}
            })
        })
        .collect();
    let manifest = json!({
        "schema_version": 2,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "media_type": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::sha256(config).to_string(),
            "size": config.len()
        },
        "layers": descriptors,
        "annotations": {}
    });
    let mut outer = ::tar::Builder::new(Vec::new());
    let mut put = |path: &str, bytes: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        outer.append_data(&mut header, path, bytes).unwrap();
    };
    let mut blobs: Vec<&[u8]> = layers.iter().map(|(.., layer)| *layer).collect();
    blobs.sort();
    blobs.dedup();
    for blob in blobs {
        put(&Digest::sha256(blob).blob_path(), blob);
    }
    put(&Digest::sha256(config).blob_path(), config);
    put("config.json", config);
    put("manifest.json", manifest.to_string().as_bytes());
    fs::write(dir.join("out.tar"), outer.into_inner().unwrap()).unwrap();
}

/// A gzipped tar of one file, or of a link.
fn layer_of(name: &str, bytes: &[u8], link: Option<&str>) -> Vec<u8> {
    let mut inner = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o644);
    match link {
        Some(target) => {
            header.set_entry_type(::tar::EntryType::Symlink);
            header.set_size(0);
            inner.append_link(&mut header, name, target).unwrap();
        }
        None => {
            header.set_size(bytes.len() as u64);
            inner.append_data(&mut header, name, bytes).unwrap();
        }
    }
    gzip(&inner.into_inner().unwrap(), 6)
}

fn content(dir: &Path, path: &str) -> Vec<u8> {
    let model = Model::open(dir.join("out.tar"), &OpenOptions::default()).unwrap();
    let file = model.find(path).unwrap();
    model.read_at(file.inode, 0, 100).unwrap().to_vec()
}

#[test]
fn k25_a_blob_of_several_paths_stays_for_the_others() {
    let dir = scratch(&[]);
    fs::write(dir.path().join("extra"), b"extra bytes").unwrap();
    // A raw layer has no name inside: several paths can name it.
    let media_type = "application/vnd.cncf.model.weight.v1.raw";
    archive_of(
        dir.path(),
        &[("x", media_type, b"shared"), ("y", media_type, b"shared")],
    );
    assert_eq!(content(dir.path(), "x"), b"shared");
    replace(&dir, "x", &options()).unwrap();
    assert_eq!(content(dir.path(), "x"), b"extra bytes");
    assert_eq!(content(dir.path(), "y"), b"shared");
    remove(&dir, "y").unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.titles(), ["x"]);
    let blob = Digest::sha256(b"shared").blob_path();
    assert!(
        !written.entries.contains_key(&blob),
        "nobody has it any more"
    );
}

#[test]
fn k25_what_others_are_links_to_stays() {
    let dir = scratch(&[]);
    fs::write(dir.path().join("extra"), b"extra bytes").unwrap();
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    let file = layer_of("a", b"content", None);
    let (link, further) = (layer_of("b", b"", Some("a")), layer_of("c", b"", Some("b")));
    archive_of(
        dir.path(),
        &[("a", tar, &file), ("b", tar, &link), ("c", tar, &further)],
    );
    assert_eq!(content(dir.path(), "b"), b"content");
    let rule = "has a layer \"b\", which is a link to \"a\"; remove that first";
    let text = problem(remove(&dir, "a"));
    assert!(text.ends_with(rule), "{text}");
    let text = problem(replace(&dir, "a", &options()));
    assert!(text.ends_with(rule), "{text}");
    // What leads there by way of another link.
    let text = problem(remove(&dir, "b"));
    assert!(
        text.contains("is a link to \"b\", which is no file"),
        "{text}"
    );
    let text = problem(replace(&dir, "b", &options()));
    assert!(
        text.contains("has a layer \"c\", which is a link by way"),
        "{text}"
    );
    assert_eq!(content(dir.path(), "c"), b"content");
    for title in ["c", "b", "a"] {
        remove(&dir, title).unwrap();
    }
}
