#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::layer::Reading;
use crate::oci::stated::MediaTypes;
use crate::oci::{Descriptor, Stated, annotations, media_type};

const DOCKER_V01: &str = "application/vnd.docker.ai.model.config.v0.1+json";
const DOCKER_V02: &str = "application/vnd.docker.ai.model.config.v0.2+json";

fn head<'a>(artifact_type: Option<&'a str>, config_type: &'a str) -> Head<'a> {
    Head {
        artifact_type,
        config_type,
        layer_type: None,
        original_spelling: false,
    }
}

#[test]
fn every_manifest_has_a_system() {
    let original = Head {
        original_spelling: true,
        ..head(None, media_type::IMAGE_CONFIG)
    };
    let ollama = Head {
        layer_type: Some("application/vnd.ollama.image.model"),
        ..head(None, media_type::DOCKER_CONFIG)
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
        ("docker", head(None, DOCKER_V01)),
        ("docker", head(None, DOCKER_V02)),
        ("image", head(None, media_type::IMAGE_CONFIG)),
        ("image", head(None, media_type::DOCKER_CONFIG)),
        (
            "kitops",
            head(None, "application/vnd.kitops.modelkit.config.v1+json"),
        ),
        ("ollama", ollama),
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
    of(head).reading(&stated, Some(path))
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
            Reading::Either,
        ),
        (
            &modelpack,
            "application/vnd.cncf.model.doc.v1.tar+gzip",
            Reading::Either,
        ),
        (
            &modelpack,
            "application/vnd.cnai.model.code.v1.tar+zstd",
            Reading::Either,
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
            Reading::Either,
        ),
        (&artifact, media_type::LAYER_TAR_GZIP, Reading::Either),
        (&artifact, media_type::LAYER_TAR_ZSTD, Reading::Either),
        (
            &artifact,
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Reading::Either,
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
    assert_eq!(reading(&artifact, tar, "data", &unpack), Reading::Members);
    let ours = [(annotations::FILE_SIZE, "4")];
    assert_eq!(reading(&artifact, tar, "data", &ours), Reading::Archive);
    let all = "allfiles.tar.gz";
    assert_eq!(reading(&artifact, tar, all, &[]), Reading::Members);
    for system in [&image, &own] {
        assert_eq!(reading(system, tar, "f", &[]), Reading::Archive);
    }
}

/// What the files of layers are called, in the order of the manifest.
fn paths(head: &Head<'_>, layers: &[(&str, Option<&str>)]) -> Result<Vec<String>> {
    let layer = |(number, (media_type, path)): (usize, &(&str, Option<&str>))| {
        let descriptor = Descriptor::of(*media_type, &number.to_le_bytes());
        Layer {
            number,
            path: path.map(Box::from),
            stated: Arc::new(Stated::of(&descriptor, &mut MediaTypes::default()).unwrap()),
        }
    };
    let layers = layers.iter().enumerate().map(layer).collect();
    let entries = of(head).contents(layers, &|| Ok(None))?.files;
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry.parts.only().unwrap().number, number);
    }
    let paths = entries.iter().map(|entry| entry.path.to_string());
    Ok(paths.collect())
}

/// Names are those of `unpackLegacy` in docker/model-runner, pkg/distribution/internal/bundle.
#[test]
fn docker_models_without_paths_have_the_names_of_model_runner() {
    let model = head(None, DOCKER_V01);
    for (kinds, expected) in [
        (
            &["gguf.v3", "license", "chat.template.jinja"][..],
            &["model.gguf", "LICENSE", "template.jinja"][..],
        ),
        (
            &["gguf.v3", "mmproj", "gguf.v3.lora"],
            &["model.gguf", "model.mmproj", "adapter.gguf"],
        ),
        (&["gguf.v3.mmproj"], &["model.mmproj"]),
        (&["dduf"], &["model.dduf"]),
        (&["safetensors"], &["model.safetensors"]),
        (
            &["safetensors", "license", "safetensors", "license"],
            &[
                "model-00001-of-00002.safetensors",
                "LICENSE-00001-of-00002",
                "model-00002-of-00002.safetensors",
                "LICENSE-00002-of-00002",
            ],
        ),
        (
            &["gguf.v3"; 3],
            &[
                "model-00001-of-00003.gguf",
                "model-00002-of-00003.gguf",
                "model-00003-of-00003.gguf",
            ],
        ),
    ] {
        let types = kinds
            .iter()
            .map(|kind| format!("application/vnd.docker.ai.{kind}"));
        let types: Vec<String> = types.collect();
        let layers: Vec<_> = types.iter().map(|text| (text.as_str(), None)).collect();
        assert_eq!(paths(&model, &layers).unwrap(), expected, "{kinds:?}");
    }
}

#[test]
fn docker_models_with_paths_keep_them() {
    let safetensors = "application/vnd.docker.ai.safetensors";
    let file = "application/vnd.docker.ai.model.file";
    let layers = [
        (safetensors, Some("unet/model.safetensors")),
        (safetensors, None),
        (file, Some("config.json")),
    ];
    for config in [DOCKER_V01, DOCKER_V02] {
        assert_eq!(
            paths(&head(None, config), &layers).unwrap(),
            [
                "unet/model.safetensors",
                "model-00002-of-00002.safetensors",
                "config.json"
            ]
        );
    }
}

#[test]
fn docker_layers_without_a_name_are_refused_with_their_type() {
    for kind in ["model.file", "gguf.v4"] {
        let media_type = format!("application/vnd.docker.ai.{kind}");
        let layers = [
            ("application/vnd.docker.ai.gguf.v3", None),
            (&media_type, None),
        ];
        let error = paths(&head(None, DOCKER_V01), &layers).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("layer 1 (sha256:"), "{error}");
        assert!(
            error.contains(&media_type) && error.contains("Docker Model Runner"),
            "{error}"
        );
    }
}

/// Names in a layer are not a system's business: who opens the layer proves them first.
#[test]
fn l10_a_layer_without_a_name_is_one_file_only_where_its_type_says_so() {
    let named = ("application/octet-stream", Some("a"));
    for (media_type, is_tar) in [
        ("application/octet-stream", false),
        (media_type::LAYER_TAR, true),
        (media_type::LAYER_TAR_GZIP, true),
        ("application/vnd.cncf.model.weight.v1.tar+zstd", true),
    ] {
        for system in SYSTEMS {
            let layer = |(number, (media_type, path)): (usize, &(&str, Option<&str>))| Layer {
                number,
                path: path.map(Box::from),
                stated: stated_of(media_type),
            };
            let layers = [named, (media_type, None)];
            let layers = layers.iter().enumerate().map(layer).collect();
            let what = system.name();
            // One has layers that lie over each other, one no archives, and ours hold one file each.
            let archives = match what {
                "image" => Some(2),
                "aumai" | "modeloci" | "ollama" => None,
                _ => is_tar.then_some(1),
            };
            match (system.contents(layers, &|| Ok(None)), archives) {
                (Ok(contents), Some(archives)) => {
                    assert_eq!(contents.archives.len(), archives, "{what}");
                    assert_eq!(contents.files.len(), 2 - archives, "{what}");
                }
                (Err(error), None) => {
                    assert_eq!(error.kind(), ErrorKind::Malformed);
                    let error = error.to_string();
                    assert!(error.starts_with("layer 1 (sha256:"), "{what}: {error}");
                    assert!(error.contains("has no file name"), "{what}: {error}");
                }
                (found, _) => panic!("{what}, {media_type}: {found:?}"),
            }
        }
    }
}

fn stated_of(media_type: &str) -> Arc<Stated> {
    let descriptor = Descriptor::of(media_type, b"blob");
    Arc::new(Stated::of(&descriptor, &mut MediaTypes::default()).unwrap())
}
