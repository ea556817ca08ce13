#![allow(clippy::unwrap_used)]

use modeloci_test_support::random::Random;
use serde_json::{Value, json};

use super::config::parse_metadata;
use super::{Descriptor, EMPTY_JSON, Index, OciConfig, OciManifest, annotations, media_type};
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::limits;

fn descriptor(blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type::LAYER_TAR_GZIP,
        "digest": Digest::sha256(blob).to_string(),
        "size": blob.len(),
    })
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::IMAGE_MANIFEST,
        "config": descriptor(b"config"),
        "layers": [descriptor(b"one"), descriptor(b"two!")],
    })
}

/// The manifest after `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = manifest();
    change(&mut value);
    value.to_string().into_bytes()
}

fn refuses(bytes: &[u8], rule: &str) {
    let error = OciManifest::parse(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    let text = error.to_string();
    assert!(
        text.starts_with("manifest: ") && text.contains(rule),
        "{text}\nexpected: {rule}"
    );
}

fn refuses_change(change: impl FnOnce(&mut Value), rule: &str) {
    refuses(&changed(change), rule);
}

#[test]
fn a_manifest_round_trips() {
    let mut layer = Descriptor::of(media_type::LAYER_TAR_GZIP, b"layer");
    layer
        .annotations
        .insert(annotations::TITLE.into(), "a/ü.bin".into());
    let config = Descriptor::of(media_type::MODEL_CONFIG, b"config");
    let manifest = OciManifest::new(config, vec![layer]);
    let bytes = manifest.to_bytes();
    assert_eq!(OciManifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""artifactType":"application/vnd.modeloci.model.v1+json","#,
            r#""config":{"mediaType":"application/vnd.modeloci.config.v1+json","#,
            r#""digest":"sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910","#,
            r#""size":6},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","#,
            r#""digest":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","#,
            r#""size":5,"annotations":{"org.opencontainers.image.title":"a/ü.bin"}}]}"#
        )
    );
}

#[test]
fn k11_no_layers_becomes_the_empty_descriptor() {
    let manifest = OciManifest::new(Descriptor::of(media_type::MODEL_CONFIG, b"c"), vec![]);
    assert_eq!(manifest.layers, [Descriptor::empty()]);
    assert!(manifest.layers[0].is_empty());
    assert_eq!(
        Descriptor::empty().digest.to_string(),
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    );
}

#[test]
fn what_other_tools_write_is_read() {
    let read = |change: fn(&mut Value)| OciManifest::parse(&changed(change)).unwrap();
    assert_eq!(
        read(|m| drop(m.as_object_mut().unwrap().remove("mediaType"))).media_type,
        None
    );
    assert_eq!(
        read(|m| m["mediaType"] = media_type::DOCKER_MANIFEST.into())
            .layers
            .len(),
        2
    );
    assert_eq!(
        read(|m| m["mediaType"] = "application/x-unknown".into())
            .layers
            .len(),
        2
    );
    assert!(read(|m| m["layers"] = json!([])).layers.is_empty());
    assert!(read(|m| m["layers"] = Value::Null).layers.is_empty());
    let unknown = read(|m| {
        m["unknown"] = json!({"a": [1.5]});
        m["layers"][0]["name"] = "model.layers.0.weight".into();
    });
    assert_eq!(
        unknown.layers[0].name.as_deref(),
        Some("model.layers.0.weight")
    );
    let subject = read(|m| m["subject"] = m["layers"][0].clone()).subject;
    assert_eq!(subject.unwrap().size, 3);
}

#[test]
fn the_original_tools_spelling_is_read() {
    let original = changed(|m| {
        let map = m.as_object_mut().unwrap();
        let version = map.remove("schemaVersion").unwrap();
        map.insert("schema_version".into(), version);
        let media_type = map.remove("mediaType").unwrap();
        map.insert("media_type".into(), media_type);
    });
    let manifest = OciManifest::parse(&original).unwrap();
    assert_eq!(
        manifest.media_type.as_deref(),
        Some(media_type::IMAGE_MANIFEST)
    );
    assert_eq!(manifest.schema_version, 2);
}

#[test]
fn j3_two_spellings_of_one_key() {
    refuses_change(
        |m| m["schema_version"] = 2.into(),
        "schemaVersion stands beside schema_version",
    );
    refuses_change(
        |m| m["layers"][1]["media_type"] = "x".into(),
        "layers[1].mediaType stands beside media_type",
    );
    refuses_change(
        |m| m["media_type"] = Value::Null,
        "mediaType stands beside media_type",
    );
}

#[test]
fn j4_manifest_and_index_in_one() {
    refuses_change(
        |m| m["manifests"] = json!([descriptor(b"x")]),
        "manifests stands in a manifest",
    );
    refuses_change(
        |m| m["manifests"] = json!([]),
        "manifests stands in a manifest",
    );
    refuses_change(
        |m| m["mediaType"] = media_type::IMAGE_INDEX.into(),
        "that of an index",
    );
    refuses_change(
        |m| m["mediaType"] = media_type::DOCKER_MANIFEST_LIST.into(),
        "that of an index",
    );
    for (document, rule) in [
        (
            json!({"schemaVersion": 2, "manifests": [], "layers": []}),
            "layers stands in an index",
        ),
        (
            json!({"schemaVersion": 2, "manifests": [], "config": {}}),
            "config stands in an index",
        ),
        (
            json!({"schemaVersion": 2, "manifests": [], "mediaType": media_type::IMAGE_MANIFEST}),
            "that of a manifest",
        ),
        (json!({"schemaVersion": 2}), "manifests is missing"),
    ] {
        let error = Index::parse(document.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn j5_sizes_that_are_no_sizes() {
    for (size, rule) in [
        ("-1", "layers[0].size is -1, not a whole number of bytes"),
        ("1.5", "layers[0].size is 1.5, not a whole number"),
        ("1e3", "layers[0].size is 1000.0, not a whole number"),
        ("3.0", "not a whole number"),
        ("-0", "not a whole number"),
        ("9223372036854775809", "the limit is 1125899906842624"),
        ("18446744073709551616", "not a whole number"),
        ("1125899906842625", "the limit is 1125899906842624"),
        ("1e999", "is not valid JSON"),
        ("\"3\"", "is a string, not a whole number"),
        ("null", "layers[0].size is missing"),
        ("[3]", "is an array, not a whole number"),
    ] {
        let text = changed(|m| m["layers"][0]["size"] = "SIZE".into());
        let text = String::from_utf8(text).unwrap().replace("\"SIZE\"", size);
        refuses(text.as_bytes(), rule);
    }
}

#[test]
fn j1_more_layers_than_the_limit() {
    let layer = Descriptor::empty();
    let manifest = |n| {
        let config = Descriptor::of("c", b"c");
        OciManifest::new(config, vec![layer.clone(); n]).to_bytes()
    };
    let rule = "layers has 100001 entries, the limit is 100000";
    refuses(&manifest(limits::MAX_LAYERS + 1), rule);
    assert!(OciManifest::parse(&manifest(limits::MAX_LAYERS)).is_ok());
    let index = Index {
        manifests: vec![layer; limits::MAX_MANIFESTS + 1],
        ..Index::of(Descriptor::empty(), "1")
    };
    let error = Index::parse(&index.to_bytes()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("manifests has 1001 entries, the limit is 1000"),
        "{error}"
    );
}

#[test]
fn j7_inline_data_must_be_the_blob() {
    let with = |data: &'static str| {
        move |m: &mut Value| {
            m["config"] = descriptor(b"{}");
            m["config"]["data"] = data.into();
        }
    };
    let manifest = OciManifest::parse(&changed(with("e30="))).unwrap();
    assert_eq!(manifest.config.data.as_deref(), Some(EMPTY_JSON));
    refuses_change(with("e30"), "manifest: config.data is not canonical base64");
    refuses_change(with("e31="), "config.data is not canonical base64");
    refuses_change(with("W10="), "config.data is sha256:4f53cda18c2b");
    refuses_change(with("e30K"), "config.data has 3 bytes, size says 2");
    refuses_change(with(""), "config.data has 0 bytes, size says 2");
}

#[test]
fn j8_urls_are_ignored() {
    let manifest = OciManifest::parse(&changed(|m| {
        m["layers"][0]["urls"] = json!(["http://localhost:1/x"]);
    }))
    .unwrap();
    assert!(
        !String::from_utf8(manifest.to_bytes())
            .unwrap()
            .contains("localhost")
    );
}

#[test]
fn d1_digests_that_are_none() {
    for bad in [
        "sha256:../../x",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "SHA256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "",
    ] {
        refuses_change(
            |m| m["layers"][1]["digest"] = bad.into(),
            "layers[1].digest is no digest",
        );
    }
    refuses_change(
        |m| m["config"]["digest"] = 5.into(),
        "config.digest is 5, not a string",
    );
    let sha512 = Digest::of(crate::Algorithm::Sha512, b"one").to_string();
    let manifest = OciManifest::parse(&changed(|m| {
        m["layers"][0]["digest"] = sha512.as_str().into();
    }))
    .unwrap();
    assert_eq!(manifest.layers[0].digest.to_string(), sha512);
}

#[test]
fn d6_one_digest_with_two_sizes() {
    refuses_change(
        |m| {
            m["layers"][1] = descriptor(b"one");
            m["layers"][1]["size"] = 4.into();
        },
        "two sizes",
    );
    refuses_change(
        |m| {
            m["config"] = descriptor(b"two!");
            m["config"]["size"] = 5.into();
        },
        "two sizes, 4 and 5",
    );
    let twice = changed(|m| m["layers"][1] = descriptor(b"one"));
    assert_eq!(OciManifest::parse(&twice).unwrap().layers.len(), 2);
}

#[test]
fn wrong_shapes_name_the_field() {
    refuses(b"[]", "manifest: is an array, not an object");
    refuses(b"7", "is 7, not an object");
    refuses_change(|m| m["schemaVersion"] = 1.into(), "schemaVersion is 1");
    refuses_change(
        |m| m["schemaVersion"] = "2".into(),
        "schemaVersion is a string",
    );
    refuses_change(|m| m["config"] = Value::Null, "config is missing");
    refuses_change(
        |m| m["config"] = "x".into(),
        "config is a string, not an object",
    );
    refuses_change(
        |m| m["layers"] = json!({}),
        "layers is an object, not an array",
    );
    refuses_change(
        |m| m["layers"][1] = json!(1),
        "layers[1] is 1, not an object",
    );
    refuses_change(
        |m| m["layers"][1]["annotations"] = json!({"a": 1}),
        r#"layers[1].annotations has 1 for "a", not a string"#,
    );
    refuses_change(
        |m| drop(m["layers"][0].as_object_mut().unwrap().remove("mediaType")),
        "layers[0].mediaType is missing",
    );
    refuses_change(
        |m| drop(m.as_object_mut().unwrap().remove("layers")),
        "layers is missing",
    );
}

#[test]
fn an_index_round_trips() {
    let index = Index::of(Descriptor::of(media_type::IMAGE_MANIFEST, b"m"), "1.0.0");
    assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
    let entry = &index.manifests[0];
    assert_eq!(entry.annotation(annotations::REF_NAME), Some("1.0.0"));
    let with_platform = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": media_type::IMAGE_MANIFEST,
            "digest": entry.digest.to_string(),
            "size": 1,
            "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
        }],
    });
    let index = Index::parse(with_platform.to_string().as_bytes()).unwrap();
    let platform = index.manifests[0].platform.as_ref().unwrap();
    assert_eq!((&*platform.os, &*platform.architecture), ("linux", "arm64"));
}

#[test]
fn a_config_is_written_in_one_way() {
    let metadata =
        parse_metadata(r#"{"z": {"b": 1, "a": [{"d": 1, "c": 2}]}, "ключ": 1.5}"#).unwrap();
    let config = OciConfig::new("minilm", "1.0", "onnx", "bert", metadata).unwrap();
    let bytes = config.to_bytes();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        concat!(
            r#"{"model_name":"minilm","version":"1.0","framework":"onnx","architecture":"bert","#,
            r#""metadata":{"z":{"a":[{"c":2,"d":1}],"b":1},"ключ":1.5}}"#
        )
    );
    assert_eq!(OciConfig::parse(&bytes).unwrap(), config);
}

/// Found by fuzzing: a number that was read and written again had another last digit.
#[test]
fn numbers_of_a_config_stay_exact() {
    for number in [
        "1.1844674407370957e20",
        "9223372036850.549",
        "5e-324",
        "0.1",
    ] {
        let text = format!(r#"{{"model_name":"m","version":"1","metadata":{{"n":{number}}}}}"#);
        let config = OciConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            config.metadata["n"].as_f64(),
            number.parse().ok(),
            "{number}"
        );
        assert_eq!(
            OciConfig::parse(&config.to_bytes()).unwrap(),
            config,
            "{number}"
        );
    }
}

#[test]
fn a_config_may_leave_out_what_is_not_needed() {
    let config = OciConfig::parse(br#"{"model_name":"m","version":"1","extra":null}"#).unwrap();
    assert_eq!((config.framework.as_str(), config.metadata.len()), ("", 0));
    for (text, rule) in [
        ("{}", "config: model_name is missing"),
        (r#"{"model_name":"m"}"#, "version is missing"),
        (
            r#"{"model_name":1,"version":"1"}"#,
            "model_name is 1, not a string",
        ),
        (
            r#"{"model_name":"m","version":"1","metadata":[]}"#,
            "metadata is an array, not an object",
        ),
        ("[]", "config: is an array, not an object"),
        (r#"{"model_name":"m","model_name":"n"}"#, "twice"),
    ] {
        let error = OciConfig::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains(rule), "{error}");
    }
}

#[test]
fn k12_names_and_versions() {
    let new = |name: &str, version: &str| {
        OciConfig::new(name, version, "", "", Default::default()).map(|_| ())
    };
    for good in [
        "a",
        "7B",
        "llama-3.1_8b",
        "2.0.0-rc.1+build.5",
        "a b",
        "модель",
    ] {
        new(good, "1").unwrap();
        new("m", good).unwrap();
    }
    // An organisation belongs to the name, and no directory to the version.
    new("meta-llama/Llama-3.1-8B", "1").unwrap();
    let error = new("m", "1/2").unwrap_err().to_string();
    assert_eq!(error, "version \"1/2\" contains a \"/\"");
    let long = "x".repeat(129);
    for bad in [
        "",
        "a/",
        "/a",
        "a//b",
        "a/..",
        "a/-b",
        "/",
        "a\nb",
        "\0",
        "a\u{7f}",
        "\u{202e}a",
        ".",
        "..",
        ".a",
        "-a",
        " a",
        "a ",
        &long,
    ] {
        for result in [new(bad, "1"), new("m", bad)] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad:?}");
            assert!(!error.to_string().contains(['\n', '\0', '\u{202e}']));
        }
    }
    let framework = OciConfig::new("m", "1", "a\x1b", "", Default::default());
    assert_eq!(framework.unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn k12_metadata() {
    for (text, rule) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{a:1}", "key must be a string at line 1 column 2"),
        ("[1]", "an array instead of an object"),
        ("null", "null instead of an object"),
        (
            r#"{"a":1,"a":2}"#,
            "it has the key \"a\" twice in one object at line 1 column 10",
        ),
    ] {
        let error = parse_metadata(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let expected = format!("metadata is invalid JSON: {rule}");
        assert_eq!(error.to_string(), expected);
    }
}

/// Text changed at random: never a panic, and what is accepted is written as it was read.
#[test]
fn j0_a_damaged_document_is_refused_or_round_trips() {
    let mut random = Random(5);
    let mut random = |n| random.below(n);
    let seed = manifest().to_string().into_bytes();
    let pieces: [&[u8]; 12] = [
        b"{}",
        b"[]",
        b"\"",
        b",",
        b":",
        b"null",
        b"-1",
        b"1e9",
        b"\\ud800",
        b"\xff",
        b"18446744073709551615",
        b"\"size\":",
    ];
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut text = seed.clone();
        for _ in 0..=random(2) {
            let at = random(text.len());
            match random(4) {
                0 => text[at] ^= 1 << random(8),
                1 => drop(text.drain(at..text.len().min(at + random(40)))),
                2 => text
                    .splice(at..at, pieces[random(12)].iter().copied())
                    .for_each(drop),
                _ => {
                    let end = text.len().min(at + random(60));
                    let copy = text[at..end].to_vec();
                    text.splice(at..at, copy).for_each(drop);
                }
            }
        }
        let _ = Index::parse(&text);
        let _ = OciConfig::parse(&text);
        if let Ok(manifest) = OciManifest::parse(&text) {
            accepted += 1;
            let bytes = manifest.to_bytes();
            assert_eq!(OciManifest::parse(&bytes).unwrap(), manifest);
        }
    }
    assert!(accepted > 500, "{accepted}");
}
