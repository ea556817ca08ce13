//! What `--json` prints is what `docs/json.md` says, and the same names mean the same in all documents.

use std::fs;

use serde_json::Value;

use super::documented::{Fields, assert_documented, fields};
use super::harness::Sandbox;

/// The parts of a document about an archive.
fn assert_parts(document: &Value, layers: &Fields) {
    assert_eq!(document["schema_version"], 1);
    assert_documented(&document["model"], &fields(&["`model`"]));
    let entries = document["layers"].as_array().unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        assert_documented(entry, layers);
    }
}

/// A field and its value in both, where both have it.
fn common(a: &Value, b: &Value) -> Vec<(String, Value, Value)> {
    let (a, b) = (a.as_object().unwrap(), b.as_object().unwrap());
    a.iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone(), b.get(name)?.clone())))
        .collect()
}

#[test]
fn pack_and_inspect_agree_and_are_documented() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("model/a~", "x");
    let line = ["pack", "model", "--name", "m", "--version", "1", "--json"];
    let packed = sandbox.run(&line).quiet().json();
    let layers = fields(&["`layers`"]);
    assert_documented(
        &packed,
        &fields(&[
            "An archive",
            "`pack`, `add-layer` and `remove-layer`",
            "`pack`",
        ]),
    );
    assert_parts(&packed, &layers);
    for left_out in packed["left_out"].as_array().unwrap() {
        assert_documented(left_out, &fields(&["`left_out`"]));
    }

    let inspected = sandbox
        .run(&["inspect", "m-1.tar", "--json"])
        .quiet()
        .json();
    let document = fields(&["An archive", "`inspect` and `verify`"]);
    assert_documented(&inspected, &document);
    assert_documented(&inspected["about"], &self::fields(&["`about`"]));
    let verified = fields(&["`layers`", "`layers` when they were verified"]);
    assert_parts(&inspected, &verified);
    let listed = sandbox
        .run(&["inspect", "m-1.tar", "--json", "--no-verify"])
        .quiet()
        .json();
    assert_documented(&listed, &document);
    assert_parts(&listed, &layers);

    // Every name that both have means the same.
    let fields = common(&packed, &inspected);
    assert_eq!(fields.len(), 15);
    for (name, packed, inspected) in fields {
        if name != "layers" {
            assert_eq!(packed, inspected, "{name}");
            continue;
        }
        let layers = packed.as_array().unwrap().iter();
        for (packed, inspected) in layers.zip(inspected.as_array().unwrap()) {
            for (name, packed, inspected) in common(packed, inspected) {
                assert_eq!(packed, inspected, "{name}");
            }
        }
    }
    let size = fs::metadata(sandbox.path("m-1.tar")).unwrap().len();
    assert_eq!(packed["archive_bytes"], size);
}

#[test]
fn a_damaged_archive_is_documented_too() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    let mut archive = fs::read(sandbox.path("m.tar")).unwrap();
    archive[2_000_000] ^= 1;
    sandbox.write("m.tar", &archive);
    let run = sandbox.run(&["inspect", "m.tar", "--json"]);
    assert_eq!(run.code, Some(1));
    let verified = fields(&["`layers`", "`layers` when they were verified"]);
    assert_parts(&run.json(), &verified);
}

#[test]
fn add_layer_and_unpack_are_documented() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    sandbox.write("extra.txt", "more");
    let added = sandbox
        .run(&["add-layer", "m.tar", "extra.txt", "--json"])
        .quiet()
        .json();
    assert_documented(
        &added,
        &fields(&["An archive", "`pack`, `add-layer` and `remove-layer`"]),
    );
    assert_parts(&added, &fields(&["`layers`"]));
    assert_eq!(added["files"], 4);

    let unpacked = sandbox
        .run(&["unpack", "m.tar", "out", "--json"])
        .quiet()
        .json();
    assert_documented(&unpacked, &fields(&["`unpack`"]));
    assert_documented(&unpacked["model"], &fields(&["`model`"]));
    assert_eq!(unpacked["manifest_digest"], added["manifest_digest"]);
}
