#![allow(clippy::unwrap_used)]

use super::*;
use crate::layer::Reading;
use crate::oci::stated::MediaTypes;
use crate::oci::{Descriptor, Stated, annotations, media_type};

fn head<'a>(artifact_type: Option<&'a str>, config_type: &'a str) -> Head<'a> {
    Head {
        artifact_type,
        config_type,
        original_spelling: false,
    }
}

#[test]
fn every_manifest_has_a_system() {
    let original = Head {
        original_spelling: true,
        ..head(None, media_type::IMAGE_CONFIG)
    };
    for (name, head) in [
        ("aumai", original),
        ("modeloci", head(Some(media_type::MODEL_ARTIFACT), "x")),
        ("modeloci", head(None, media_type::MODEL_CONFIG)),
        (
            "modelpack",
            head(Some("application/vnd.cncf.model.manifest.v1+json"), "x"),
        ),
        (
            "modelpack",
            head(None, "application/vnd.cnai.model.config.v1+json"),
        ),
        ("image", head(None, media_type::IMAGE_CONFIG)),
        ("image", head(None, media_type::DOCKER_CONFIG)),
        (
            "artifact",
            head(
                Some("application/vnd.unknown.artifact.v1"),
                media_type::EMPTY,
            ),
        ),
        ("artifact", head(None, "application/json")),
    ] {
        assert_eq!(of(&head).name(), name, "{head:?}");
    }
}

/// How a layer is read.
fn reading(head: &Head<'_>, media_type: &str, path: &str, stated: &[(&str, &str)]) -> Reading {
    let mut descriptor = Descriptor::of(media_type, b"blob");
    let texts = stated.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    descriptor.annotations.extend(texts);
    let stated = Stated::of(&descriptor, &mut MediaTypes::default()).unwrap();
    of(head).reading(&stated, path)
}

#[test]
fn l13_the_media_type_says_whether_a_layer_is_opened() {
    let modelpack = head(None, "application/vnd.cncf.model.config.v1+json");
    let artifact = head(None, media_type::EMPTY);
    for (system, media_type, expected) in [
        (
            &modelpack,
            "application/vnd.cncf.model.weight.v1.raw",
            Reading::File,
        ),
        (
            &modelpack,
            "application/vnd.cncf.model.weight.v1.tar",
            Reading::Archive,
        ),
        (
            &modelpack,
            "application/vnd.cncf.model.doc.v1.tar+gzip",
            Reading::Archive,
        ),
        (
            &modelpack,
            "application/vnd.cnai.model.code.v1.tar+zstd",
            Reading::Archive,
        ),
        (&artifact, "application/octet-stream", Reading::File),
        (&artifact, "application/gzip", Reading::File),
        (&artifact, "application/x-tar", Reading::File),
        (&artifact, "text/plain; charset=utf-8", Reading::File),
        (
            &artifact,
            "application/vnd.docker.ai.gguf.v3",
            Reading::File,
        ),
        (
            &artifact,
            "application/vnd.docker.ai.dir.tar",
            Reading::Archive,
        ),
        (&artifact, media_type::LAYER_TAR_GZIP, Reading::Archive),
        (&artifact, media_type::LAYER_TAR_ZSTD, Reading::Archive),
        (
            &artifact,
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Reading::Archive,
        ),
    ] {
        assert_eq!(
            reading(system, media_type, "f", &[]),
            expected,
            "{media_type}"
        );
    }
}

#[test]
fn l13_the_plain_tar_that_clients_call_everything_is_opened_only_where_it_is_one() {
    let tar = media_type::LAYER_TAR;
    let artifact = head(None, media_type::EMPTY);
    let image = head(None, media_type::IMAGE_CONFIG);
    let own = head(None, media_type::MODEL_CONFIG);
    assert_eq!(reading(&artifact, tar, "data.tar", &[]), Reading::File);
    let no = [(annotations::ORAS_UNPACK, "false")];
    assert_eq!(reading(&artifact, tar, "data", &no), Reading::File);
    let unpack = [(annotations::ORAS_UNPACK, "true")];
    assert_eq!(reading(&artifact, tar, "data", &unpack), Reading::Archive);
    let ours = [(annotations::FILE_SIZE, "4")];
    assert_eq!(reading(&artifact, tar, "data", &ours), Reading::Archive);
    let all = "allfiles.tar.gz";
    assert_eq!(reading(&artifact, tar, all, &[]), Reading::Archive);
    for system in [&image, &own] {
        assert_eq!(reading(system, tar, "f", &[]), Reading::Archive);
    }
}
