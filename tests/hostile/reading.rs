//! Whether a layer is opened is its media type's word, and its system's; never its bytes' alone.

use serde_json::json;

use crate::forge::{Layout, Tar, gzip};
use crate::sandbox::Sandbox;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout of one layer as `oras push` writes it: an empty config, the title, a media type.
fn pushed(name: &str, blob: &[u8], media_type: &str, annotations: &[(&str, &str)]) -> Layout {
    let mut layout = Layout::of_layers([(name, blob.to_vec())]);
    layout.edit_manifest(|manifest| {
        manifest["artifactType"] = json!("application/vnd.unknown.artifact.v1");
        let empty = crate::forge::digest(b"{}");
        manifest["config"] =
            json!({"mediaType": EMPTY, "digest": empty, "size": 2, "data": "e30="});
        let layer = &mut manifest["layers"][0];
        layer["mediaType"] = media_type.into();
        layer["annotations"] = json!({"org.opencontainers.image.title": name});
        for (key, value) in annotations {
            layer["annotations"][*key] = (*value).into();
        }
    });
    layout.remove("config.json");
    layout
}

/// A data set that is a tar, whose only member has its own name: the member was served in its place.
#[test]
fn l13_a_tar_that_is_pushed_as_a_file_is_that_file() {
    let tar = Tar::new().file("data.tar", b"only a member").end();
    for (media_type, blob) in [
        (TAR, tar.clone()),
        ("application/octet-stream", tar.clone()),
        ("text/plain; charset=utf-8", gzip(&tar)),
        ("application/vnd.cncf.model.dataset.v1.raw", gzip(&tar)),
        (
            "application/x-whatever",
            zstd::encode_all(&tar[..], 3).unwrap(),
        ),
    ] {
        let layout = pushed("data.tar", &blob, media_type, &[]);
        Sandbox::new().accepts(layout.to_bytes(), &[("data.tar", blob)]);
    }
}

#[test]
fn l13_a_type_that_names_a_tar_is_opened_whatever_packs_it() {
    let tar = Tar::new().file("f.bin", b"content").end();
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    let unpack = ("io.deis.oras.content.unpack", "true");
    let size = ("io.modeloci.file.size", "7");
    for (media_type, annotation, blob, found) in [
        (TAR, Some(unpack), tar.clone(), None),
        (TAR, Some(size), gzip(&tar), Some("compressed with gzip")),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            None,
            tar.clone(),
            Some("a tar that is not compressed"),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            None,
            zstd,
            Some("compressed with zstd"),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            None,
            b"content".to_vec(),
            Some("is no tar"),
        ),
    ] {
        let layout = pushed("f.bin", &blob, media_type, annotation.as_slice());
        let sandbox = Sandbox::new();
        sandbox.accepts(layout.to_bytes(), &[("f.bin", b"content".to_vec())]);
        sandbox.write("m.tar", layout.to_bytes());
        let run = sandbox.run_bounded(&["inspect", "m.tar", "--json"]).ok();
        let notes = run.json()["warnings"].to_string();
        match found {
            Some(found) => {
                assert!(
                    notes.contains(found) && notes.contains(media_type),
                    "{notes}"
                );
            }
            None => assert_eq!(notes, "[]"),
        }
    }
}

/// What ModelPack says of a file goes before what a tar says.
#[test]
fn l13_mode_and_time_that_modelpack_states_are_shown() {
    let metadata = json!({"name": "run", "mode": 0o755, "uid": 0, "gid": 0, "size": 7,
        "mtime": "2023-11-14T22:13:20Z", "typeflag": 48});
    let metadata = metadata.to_string();
    let key = "org.cncf.model.file.metadata+json";
    let tar = Tar::new().file("run", b"content").end();
    for (media_type, blob) in [
        (
            "application/vnd.cncf.model.code.v1.raw",
            b"content".to_vec(),
        ),
        ("application/vnd.cncf.model.code.v1.tar", tar),
    ] {
        let layout = pushed("run", &blob, media_type, &[(key, &metadata)]);
        let sandbox = Sandbox::new();
        sandbox.write("m.tar", layout.to_bytes());
        sandbox.run_bounded(&["unpack", "m.tar", "out"]).ok();
        let unpacked = std::fs::metadata(sandbox.path("out/run")).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(unpacked.mode() & 0o111, 0o111, "{media_type}");
        assert_eq!(unpacked.mtime(), 1_700_000_000, "{media_type}");
    }
    let layout = pushed(
        "run",
        b"content",
        "text/plain",
        &[(key, "{\"mode\":\"x\"}")],
    );
    Sandbox::new().refuses(layout.to_bytes(), 3, &["run", key, "mode"]);
}

/// As Docker Model Runner pushed models before their descriptors had annotations.
#[test]
fn a_docker_model_without_paths_is_unpacked_under_the_names_of_model_runner() {
    let files = [
        ("gguf.v3", "model.gguf", b"GGUF weights".to_vec()),
        ("gguf.v3.mmproj", "model.mmproj", b"GGUF projector".to_vec()),
        // Its bytes look like an archive; its type says that it is none.
        ("license", "LICENSE", gzip(b"Apache")),
        ("chat.template.jinja", "template.jinja", Vec::new()),
    ];
    let mut layout = Layout::of_layers(files.iter().map(|(_, path, bytes)| (*path, bytes.clone())));
    layout.edit_manifest(|manifest| {
        let config = "application/vnd.docker.ai.model.config.v0.1+json";
        manifest["config"]["mediaType"] = config.into();
        for (layer, (kind, ..)) in manifest["layers"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(&files)
        {
            layer["mediaType"] = format!("application/vnd.docker.ai.{kind}").into();
            layer.as_object_mut().unwrap().remove("annotations");
        }
    });
    layout.remove("config.json");
    let files = files.map(|(_, path, bytes)| (path, bytes));
    Sandbox::new().accepts(layout.to_bytes(), &files);
}
