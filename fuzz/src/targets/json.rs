//! JSON documents.

use super::super::forge::{CONFIG, INDEX, MANIFEST, TAR_GZIP, TITLE, descriptor};
use serde_json::{Value, json};

pub mod documents {
    use super::*;
    use modeloci::oci::{Descriptor, Index, OciConfig, OciManifest};

    /// A document that we accept says the same to an ordinary JSON parser, and is read back the same
    /// after we have written it.
    pub fn run(data: &[u8]) {
        if let Ok(manifest) = OciManifest::parse(data) {
            let value = value(data);
            same(
                std::slice::from_ref(&manifest.config),
                &json!([value["config"]]),
            );
            same(&manifest.layers, &value["layers"]);
            assert!(value.get("manifests").is_none_or(Value::is_null));
            let plain = |mut manifest: OciManifest| {
                let all = manifest.layers.iter_mut().chain([&mut manifest.config]);
                all.chain(&mut manifest.subject)
                    .for_each(|descriptor| descriptor.data = None);
                manifest
            };
            let again = OciManifest::parse(&manifest.to_bytes()).expect("what we wrote");
            assert_eq!(again, plain(manifest));
        }
        if let Ok(mut index) = Index::parse(data) {
            same(&index.manifests, &value(data)["manifests"]);
            index
                .manifests
                .iter_mut()
                .for_each(|descriptor| descriptor.data = None);
            assert_eq!(
                Index::parse(&index.to_bytes()).expect("what we wrote"),
                index
            );
        }
        if let Ok(config) = OciConfig::parse(data) {
            let value = value(data);
            assert_eq!(value["model_name"], config.model_name.as_str());
            assert_eq!(value["version"], config.version.as_str());
            assert_eq!(
                OciConfig::parse(&config.to_bytes()).expect("what we wrote"),
                config
            );
        }
    }

    fn value(data: &[u8]) -> Value {
        serde_json::from_slice(data).expect("what we accept is JSON")
    }

    fn same(ours: &[Descriptor], theirs: &Value) {
        let theirs = theirs.as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(theirs["digest"], ours.digest.to_string());
            assert_eq!(theirs["size"], ours.size);
            assert_eq!(theirs["mediaType"], ours.media_type.as_str());
            let stated = theirs["annotations"].as_object().map_or(0, |all| all.len());
            assert_eq!(stated, ours.annotations.len());
            for (key, value) in &ours.annotations {
                assert_eq!(theirs["annotations"][key], value.as_str());
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let mut layer = descriptor(TAR_GZIP, b"layer");
        layer["annotations"] = json!({ TITLE: "a/b.bin", "io.modeloci.file.size": "5" });
        layer["urls"] = json!(["https://example.com"]);
        let mut config = descriptor(CONFIG, b"{}");
        config["data"] = json!("e30=");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x",
            "config": config, "layers": [layer, descriptor(TAR_GZIP, b"2")],
            "subject": descriptor(MANIFEST, b"s"), "annotations": {"created": "now", "ü": "\u{1f600}"},
        });
        let mut entry = descriptor(MANIFEST, b"m");
        entry["platform"] = json!({"os": "linux", "architecture": "amd64", "variant": "v2"});
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry, descriptor(INDEX, b"i")],
            "annotations": null,
        });
        let config = json!({
            "model_name": "m", "version": "1", "framework": "onnx", "architecture": "mlp",
            "metadata": {"a": [1, -2, 0.5, null, true, {"b": "\\\"\n"}]},
        });
        [manifest, index, config]
            .iter()
            .map(|v| serde_json::to_vec(v).unwrap())
            .collect()
    }
}
