//! The archive as an OCI image layout: documents by the rules of the specification's schemas, and
//! other tools that read it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value, json};

use super::support::run::Run;
use super::workspace::{Workspace, has, output, shell};
use super::{CHUNK_OPTIONS, Layout, contents, model, support};

/// A media type (RFC 6838, section 4.2).
fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        (1..=127).contains(&part.len())
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    text.split_once('/')
        .is_some_and(|(kind, sub)| name(kind) && name(sub))
}

/// A SHA-256 digest as the specification registers it.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[track_caller]
fn only(object: &Map<String, Value>, keys: &[&str]) {
    let unknown = object.keys().find(|key| !keys.contains(&key.as_str()));
    assert_eq!(unknown, None, "{object:?}");
}

#[track_caller]
fn check_annotations(object: &Map<String, Value>) {
    for (key, value) in object
        .get("annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        assert!(!key.is_empty() && value.is_string(), "{object:?}");
    }
}

/// "OCI Content Descriptors", and the blob behind it.
#[track_caller]
fn check_descriptor(layout: &Layout, value: &Value) {
    let object = value.as_object().unwrap();
    only(
        object,
        &[
            "mediaType",
            "digest",
            "size",
            "annotations",
            "artifactType",
            "data",
        ],
    );
    check_annotations(object);
    let text = |key: &str| object[key].as_str().unwrap();
    assert!(is_media_type(text("mediaType")), "{value}");
    assert!(
        object
            .get("artifactType")
            .is_none_or(|t| is_media_type(t.as_str().unwrap())),
        "{value}"
    );
    assert!(is_digest(text("digest")), "{value}");
    let bytes = fs::read(layout.blob(value)).unwrap();
    assert_eq!(object["size"].as_u64(), Some(bytes.len() as u64), "{value}");
    assert_eq!(
        text("digest"),
        format!("sha256:{}", support::sha256(&bytes))
    );
}

/// "Image Manifest".
#[track_caller]
fn check_manifest(layout: &Layout, manifest: &Value) {
    let object = manifest.as_object().unwrap();
    only(
        object,
        &[
            "schemaVersion",
            "mediaType",
            "artifactType",
            "config",
            "layers",
            "subject",
            "annotations",
        ],
    );
    check_annotations(object);
    assert_eq!(object["schemaVersion"], 2);
    assert_eq!(
        object["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert!(is_media_type(object["artifactType"].as_str().unwrap()));
    check_descriptor(layout, &object["config"]);
    let layers = object["layers"].as_array().unwrap();
    assert!(!layers.is_empty(), "the schema asks for at least one layer");
    for layer in layers {
        check_descriptor(layout, layer);
    }
    if let Some(subject) = object.get("subject") {
        check_descriptor(layout, subject);
    }
}

/// "Image Layout": every document, and every blob under its digest.
fn check_layout(layout: &Layout) {
    let read = |name: &str| fs::read(layout.root.join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap();
    assert_eq!(read("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = json("index.json");
    let object = index.as_object().unwrap();
    only(
        object,
        &["schemaVersion", "mediaType", "manifests", "annotations"],
    );
    assert_eq!(object["schemaVersion"], 2);
    assert_eq!(
        object["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    let manifests = object["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 1);
    let descriptor = &manifests[0];
    check_descriptor(layout, descriptor);
    assert_eq!(
        descriptor["annotations"]["org.opencontainers.image.ref.name"],
        "1.0"
    );
    assert_eq!(
        fs::read(layout.blob(descriptor)).unwrap(),
        read("manifest.json")
    );
    check_manifest(layout, &layout.manifest);
    assert_eq!(
        fs::read(layout.blob(&layout.manifest["config"])).unwrap(),
        read("config.json")
    );
    for entry in fs::read_dir(layout.root.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(
            path.file_name().unwrap().to_str().unwrap(),
            support::sha256(&bytes)
        );
        // The referrer that keeps chunk tables is a manifest that no document names.
        if let Ok(document) = serde_json::from_slice::<Value>(&bytes)
            && document.get("subject").is_some()
        {
            check_manifest(layout, &document);
        }
    }
}

#[test]
fn documents_follow_the_specification() {
    let workspace = Workspace::new();
    let model = model(&workspace);
    for method in ["auto", "gzip:6", "zstd", "none"] {
        let archive = workspace.pack(&model, &format!("{method}.tar"), &["--compression", method]);
        check_layout(&Layout::of(&workspace, &archive));
    }
}

#[test]
fn k11_a_model_without_files_follows_the_specification() {
    let workspace = Workspace::new();
    for (i, directories) in ["model", "model/a/b"].iter().enumerate() {
        fs::create_dir_all(workspace.path(directories)).unwrap();
        for method in ["auto", "zstd", "none"] {
            let archive = format!("{i}-{method}.tar");
            let archive = workspace.pack(
                &workspace.path("model"),
                &archive,
                &["--compression", method],
            );
            let layout = Layout::of(&workspace, &archive);
            check_layout(&layout);
            let layers = layout.manifest["layers"].as_array().unwrap();
            assert_eq!(layers.len(), 1);
            if i == 1 {
                assert_eq!(layers[0]["annotations"]["io.modeloci.directory"], "true");
                continue;
            }
            assert_eq!(layers[0]["mediaType"], "application/vnd.oci.empty.v1+json");
            assert_eq!(fs::read(layout.blob(&layers[0])).unwrap(), b"{}");
        }
    }
}

/// The archive holds regular files only, in the one form that every tar reader knows.
#[test]
fn archives_are_read_by_every_tar() {
    let workspace = Workspace::new();
    let archive = workspace.pack(&model(&workspace), "m.tar", &[]);
    let list = |command: &str| {
        let names = shell(&format!("{command} \"$1\""), &[&archive]);
        String::from_utf8(names)
            .unwrap()
            .lines()
            .map(String::from)
            .collect::<BTreeSet<_>>()
    };
    let expected = list("tar -tf");
    assert!(
        expected
            .iter()
            .all(|name| !name.starts_with('.') && !name.ends_with('/'))
    );
    for (program, command) in [
        ("bsdtar", "bsdtar -tf"),
        ("busybox", "busybox tar -tf"),
        (
            "python3",
            "python3 -c 'import sys, tarfile; print(*tarfile.open(sys.argv[1]).getnames(), sep=chr(10))'",
        ),
    ] {
        if has(program) {
            assert_eq!(list(command), expected, "{program}");
        }
    }
}

/// skopeo copies the archive as it is: into a layout, into a directory, and back into an archive
/// that is still the same model.
#[test]
fn skopeo_copies_the_archive() {
    if !has("skopeo") {
        return;
    }
    let workspace = Workspace::new();
    let model = model(&workspace);
    for method in ["auto", "zstd", "none"] {
        let archive = workspace.pack(&model, &format!("{method}.tar"), &["--compression", method]);
        let original = Layout::of(&workspace, &archive);
        let copy = workspace.path(format!("{method}-copy.tar"));
        let directory = workspace.path(format!("{method}-dir"));
        let layout = workspace.path(format!("{method}-layout"));
        shell(
            "copy() { skopeo --insecure-policy copy --quiet \"$@\"; }
             copy \"oci-archive:$1\" \"dir:$2\"
             copy \"oci-archive:$1:1.0\" \"oci:$3:1.0\"
             copy \"oci:$3:1.0\" \"oci-archive:$4:1.0\"",
            &[&archive, &directory, &layout, &copy],
        );
        for (descriptor, blob) in original.manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .zip(original.layers())
        {
            let (_, hex) = descriptor["digest"]
                .as_str()
                .unwrap()
                .split_once(':')
                .unwrap();
            let bytes = fs::read(blob).unwrap();
            assert!(fs::read(directory.join(hex)).unwrap() == bytes, "{hex}");
            assert!(
                fs::read(layout.join("blobs/sha256").join(hex)).unwrap() == bytes,
                "{hex}"
            );
        }
        // What comes back is the same manifest, and reads as the same files. Tables of plain layers
        // are referrers, which this copy leaves behind: those layers are read without.
        for copied in [&layout, &copy] {
            let unpacked = workspace.path("unpacked");
            let mut command = workspace.modeloci(&["unpack", "--force", "--json"]);
            let report = output(command.arg(copied).arg(&unpacked));
            let report: Value = serde_json::from_slice(&report).unwrap();
            let manifest = fs::read(original.root.join("manifest.json")).unwrap();
            let digest = format!("sha256:{}", support::sha256(&manifest));
            assert_eq!(report["manifest_digest"], digest.as_str());
            assert_eq!(contents(&unpacked), contents(&model), "{method}");
        }
    }
}

/// docs/registries.md, "A store of several versions": what versions have in common is there once, each is
/// read under its name, and goes without a trace in the other one.
#[test]
fn versions_share_a_layout_directory() {
    if !has("skopeo") || !has("umoci") {
        return;
    }
    let workspace = Workspace::new();
    let model = model(&workspace);
    let old = workspace.pack(&model, "old.tar", &[]);
    let before = contents(&model);
    let blobs = Layout::of(&workspace, &old).manifest["layers"].clone();
    let layers: BTreeSet<_> = blobs
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["digest"].as_str())
        .collect();
    fs::write(model.join("config.json"), "{\"layers\": 3}\n").unwrap();
    let new = workspace.pack(&model, "new.tar", &[]);
    let store = workspace.path("store");
    shell(
        "copy() { skopeo --insecure-policy copy --quiet \"$@\"; }
         copy \"oci-archive:$1:1.0\" \"oci:$3:1.0\"
         copy \"oci-archive:$2:1.0\" \"oci:$3:1.1\"",
        &[&old, &new, &store],
    );
    let count = || fs::read_dir(store.join("blobs/sha256")).unwrap().count();
    // One more layer; the config, and two manifests.
    assert_eq!(count(), layers.len() + 1 + 1 + 2);

    let unpack = |options: &[&str]| {
        let unpacked = workspace.path("unpacked");
        let mut command = workspace.modeloci(&["unpack", "--force"]);
        output(command.args(options).arg(&store).arg(&unpacked));
        contents(&unpacked)
    };
    assert_eq!(unpack(&["--ref", "1.0"]), before);
    assert_eq!(unpack(&["--ref", "1.1"]), contents(&model));
    let run = Run::of(workspace.modeloci(&["inspect"]).arg(&store));
    run.fails(2, &["choose one with --ref", "(1.0)", "(1.1)"]);

    shell(
        "umoci rm --image \"$1:1.0\"; umoci gc --layout \"$1\"",
        &[&store],
    );
    assert_eq!(count(), layers.len() + 1 + 1);
    assert_eq!(unpack(&[]), contents(&model));
}

/// umoci knows the layout: it finds the tag, and its garbage collection keeps every blob.
#[test]
fn umoci_keeps_every_blob() {
    if !has("umoci") {
        return;
    }
    let workspace = Workspace::new();
    let model = model(&workspace);
    for method in ["auto", "zstd"] {
        let archive = workspace.pack(&model, &format!("{method}.tar"), &["--compression", method]);
        let layout = Layout::of(&workspace, &archive);
        let before = contents(&layout.root.join("blobs"));
        let tags = shell(
            "umoci ls --layout \"$1\"; umoci gc --layout \"$1\"",
            &[&layout.root],
        );
        assert_eq!(String::from_utf8(tags).unwrap(), "1.0\n");
        assert_eq!(contents(&layout.root.join("blobs")), before);
    }
}

/// The same layers below the config of a container image: what Go's readers of gzip and tar, those
/// of container tools, make of them.
#[test]
fn container_tools_unpack_the_layers() {
    if !has("umoci") || !has("skopeo") {
        return;
    }
    let workspace = Workspace::new();
    let model = model(&workspace);
    for options in [&[][..], &CHUNK_OPTIONS, &["--compression", "gzip:9"]] {
        let archive = workspace.pack(&model, "m.tar", &[options, &["--force"]].concat());
        let layout = Layout::of(&workspace, &archive);
        let root = &layout.root;
        let mut diff_ids = Vec::new();
        for blob in layout.layers() {
            let sum = shell("gzip -dc <\"$1\" | sha256sum | cut -c1-64", &[&blob]);
            diff_ids.push(format!("sha256:{}", String::from_utf8(sum).unwrap().trim()));
        }
        let put = |media_type: &str, document: &Value| {
            let bytes = serde_json::to_vec(document).unwrap();
            let hex = support::sha256(&bytes);
            fs::write(root.join("blobs/sha256").join(&hex), &bytes).unwrap();
            json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
        };
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put("application/vnd.oci.image.config.v1+json", &config),
            "layers": layout.manifest["layers"],
        });
        let mut descriptor = put("application/vnd.oci.image.manifest.v1+json", &manifest);
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(root.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();

        let bundle = workspace.path("bundle");
        let plain = workspace.path("plain");
        shell(
            "umoci --log error unpack --rootless --image \"$1:image\" \"$2\" >/dev/null
             skopeo --insecure-policy copy --quiet --dest-decompress \"oci:$1:image\" \"dir:$3\"",
            &[root, &bundle, &plain],
        );
        assert_eq!(
            contents(&bundle.join("rootfs")),
            contents(&model),
            "{options:?}"
        );
        for diff_id in diff_ids {
            let (_, hex) = diff_id.split_once(':').unwrap();
            let tar = fs::read(plain.join(hex)).unwrap();
            assert_eq!(support::sha256(&tar), hex, "{options:?}");
        }
        for left in [root, &bundle, &plain] {
            fs::remove_dir_all(left).unwrap();
        }
    }
}
