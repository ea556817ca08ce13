//! `pack --config-schema`: a config keeps its contract, or nothing is packed.

use super::harness::{Run, Sandbox};

const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["model_name", "version", "framework", "architecture", "metadata"],
  "properties": {
    "version": { "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$" },
    "framework": { "enum": ["pytorch", "onnx"] },
    "metadata": {
      "required": ["owner"],
      "properties": {
        "owner": { "$ref": "#/$defs/team" },
        "energy": { "type": "object", "properties": { "wh": { "type": "number", "minimum": 0 } } }
      },
      "additionalProperties": false
    }
  },
  "$defs": { "team": { "type": "string", "minLength": 2 } }
}"##;

fn pack(sandbox: &Sandbox, more: &[&str]) -> Run {
    let line = [
        "pack",
        "model",
        "--name",
        "m",
        "--config-schema",
        "schema.json",
        "-o",
        "m.tar",
    ];
    sandbox.run(&[&line[..], more].concat())
}

#[test]
fn k24_a_config_that_keeps_its_schema_is_packed() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("schema.json", SCHEMA);
    let metadata = r#"{"owner":"ml","energy":{"wh":0.5}}"#;
    pack(&sandbox, &["--version", "1.0.0", "--metadata", metadata]).quiet();
    sandbox.run(&["inspect", "m.tar"]).quiet();
}

#[test]
fn k24_each_violation_names_its_path_and_nothing_is_packed() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("schema.json", SCHEMA);
    let metadata = r#"{"owner":"x","energy":{"wh":-1},"more":1}"#;
    let more = [
        "--version",
        "1",
        "--framework",
        "jax",
        "--metadata",
        metadata,
    ];
    let run = pack(&sandbox, &more).refused(2, "the config breaks its schema: ");
    for path in [
        "/framework: ",
        "/metadata: ",
        "/metadata/energy/wh: ",
        "/metadata/owner: ",
        "/version: ",
    ] {
        assert!(run.stderr.contains(path), "{path}: {}", run.stderr);
    }
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    // What the files tell is part of the config.
    sandbox.write("model/m.onnx", b"\x08\x07\x12");
    let owner = ["--version", "1.0.0", "--metadata", r#"{"owner":"ml"}"#];
    pack(&sandbox, &owner).quiet();
    std::fs::remove_file(sandbox.path("m.tar")).unwrap();
    std::fs::remove_file(sandbox.path("model/m.onnx")).unwrap();
    sandbox.write("model/m.joblib", b"x");
    let run = pack(&sandbox, &owner).refused(2, "/framework: ");
    assert!(run.stderr.contains("sklearn"), "{}", run.stderr);
    assert_eq!(sandbox.names(), ["model", "schema.json"]);
}

#[test]
fn k24_what_is_no_schema_is_an_error_and_nothing_is_fetched() {
    let sandbox = Sandbox::new();
    sandbox.model();
    for (schema, why) in [
        ("{", "schema.json is invalid JSON"),
        ("{\"type\": 5}", "schema is not usable"),
        (
            "{\"$ref\": \"http://127.0.0.1:1/x.json\"}",
            "schema is not usable",
        ),
        ("{\"$ref\": \"file:///etc/passwd\"}", "schema is not usable"),
        ("false", "the config breaks its schema: /: "),
    ] {
        sandbox.write("schema.json", schema);
        pack(&sandbox, &["--version", "1"]).refused(2, why);
    }
    std::fs::remove_file(sandbox.path("schema.json")).unwrap();
    pack(&sandbox, &["--version", "1"]).refused(5, "schema.json");
    assert_eq!(sandbox.names(), ["model"]);
}
