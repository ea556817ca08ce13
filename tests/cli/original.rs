//! What the original tool documents is printed line by line, and what we add stands below it.

use super::harness::{Sandbox, noise};

/// The options and outputs of the original's quick start. Its archive is in `/workspace`; its digests
/// are shortened.
const PACK: &str = "\
Packaged model: /workspace/my-classifier-1.0.0.tar
  Name        : my-classifier
  Version     : 1.0.0
  Framework   : pytorch
  Archive     : /workspace/my-classifier-1.0.0.tar
";
const INSPECT: &str = "\
Model    : my-classifier
Version  : 1.0.0
Framework: pytorch
Arch     : transformer

Layers (3):
  pytorch_model.bin                        4321.0 KB  sha256:a3b9c1d2e4f5...
  config.json                                 2.1 KB  sha256:f1e2d3c4b5a6...
  tokenizer.json                             18.4 KB  sha256:0a1b2c3d4e5f...

Layer verification (3 layers):
  OK  sha256:a3b9c1d2e4f5...
  OK  sha256:f1e2d3c4b5a6...
  OK  sha256:0a1b2c3d4e5f...
All layers verified.
";
/// The sizes of its three files, in bytes.
const FILES: [(&str, usize); 3] = [
    ("pytorch_model.bin", 4_424_704),
    ("config.json", 2_150),
    ("tokenizer.json", 18_842),
];

/// The quick start's model in `my-model`, packed.
fn packed(sandbox: &Sandbox) -> String {
    for (name, size) in FILES {
        sandbox.write(&format!("my-model/{name}"), noise(1, size));
    }
    let line = "pack --model-dir ./my-model --name my-classifier --version 1.0.0 \
                --framework pytorch --architecture transformer";
    let line: Vec<&str> = line.split_whitespace().collect();
    sandbox.run(&line).quiet().text().to_string()
}

/// The lines of a section, without what differs from run to run: the digests' digits, and with them
/// the order of layers, which are those of files sorted by path.
fn lines(text: &str) -> Vec<String> {
    let cut = |line: &str| match line.split_once("sha256:") {
        Some((start, digest)) => {
            assert!(digest.len() >= 12, "{line}");
            format!("{start}sha256:")
        }
        None => line.to_string(),
    };
    let mut lines: Vec<String> = text.lines().map(cut).collect();
    lines.sort();
    lines
}

#[test]
fn pack_prints_what_the_original_documents() {
    let sandbox = Sandbox::new();
    let text = packed(&sandbox);
    let workspace = sandbox.real("");
    let documented = PACK.replace("/workspace/", &workspace);
    let ours = text.strip_prefix(&*documented).unwrap_or_else(|| {
        panic!("{text}\ndoes not begin with\n{documented}");
    });
    let ours: Vec<&str> = ours.lines().collect();
    let digest = ours[0].strip_prefix("Digest:    ").unwrap();
    assert!(ours[1].starts_with("Files:     3 ("), "{}", ours[1]);
    assert!(ours[2].starts_with("Size:      "), "{}", ours[2]);
    assert_eq!(ours.len(), 3);
    assert_eq!(sandbox.names(), ["my-classifier-1.0.0.tar", "my-model"]);
    sandbox
        .run(&["inspect", "my-classifier-1.0.0.tar", "--digest", digest])
        .quiet();
}

#[test]
fn inspect_prints_what_the_original_documents() {
    let sandbox = Sandbox::new();
    packed(&sandbox);
    let run = sandbox.run(&["inspect", "--archive", "my-classifier-1.0.0.tar"]);
    let run = run.quiet();
    let documented: Vec<&str> = INSPECT.split("\n\n").collect();
    let printed: Vec<&str> = run.text().split("\n\n").collect();
    assert_eq!(printed.len(), documented.len() + 1, "{}", run.text());
    for (printed, documented) in printed.iter().zip(&documented) {
        assert_eq!(lines(printed), lines(documented));
    }
    // The first and the last line of a section are in their places.
    assert_eq!(printed[0], documented[0]);
    assert!(printed[1].starts_with("Layers (3):\n"));
    assert!(printed[2].starts_with("Layer verification (3 layers):\n"));
    assert!(printed[2].ends_with("\nAll layers verified."));
    let ours = printed[3];
    assert!(
        ours.starts_with("Metadata:  {}\nDigest:    sha256:"),
        "{ours}"
    );
}

#[test]
fn unpack_says_where_it_unpacked_to_and_prints_the_config() {
    let sandbox = Sandbox::new();
    packed(&sandbox);
    let line = [
        "unpack",
        "--archive",
        "my-classifier-1.0.0.tar",
        "--output",
        "./created/if/absent",
    ];
    let run = sandbox.run(&line).quiet();
    let config = INSPECT.split("\n\n").next().unwrap();
    let documented = format!(
        "Unpacked to: {}\n{config}\n",
        sandbox.real("created/if/absent")
    );
    let ours = run.text().strip_prefix(&*documented).unwrap_or_else(|| {
        panic!("{}\ndoes not begin with\n{documented}", run.text());
    });
    assert!(ours.starts_with("Metadata:  {}\nDigest:    "), "{ours}");
    for (name, size) in FILES {
        let path = sandbox.path("created/if/absent").join(name);
        assert!(std::fs::read(path).unwrap() == noise(1, size), "{name}");
    }
}

#[test]
fn bad_metadata_is_invalid_json_in_the_originals_words() {
    let sandbox = Sandbox::new();
    sandbox.write("m/f", "x");
    let line = [
        "pack",
        "--model-dir",
        "m",
        "--name",
        "m",
        "--version",
        "1",
        "--metadata",
        "not-json",
    ];
    sandbox.run(&line).refused(2, "invalid JSON");
}

#[test]
fn inspect_exits_1_when_a_layer_fails() {
    let sandbox = Sandbox::new();
    packed(&sandbox);
    let mut archive = std::fs::read(sandbox.path("my-classifier-1.0.0.tar")).unwrap();
    archive[1_000_000] ^= 1;
    sandbox.write("my-classifier-1.0.0.tar", &archive);
    let run = sandbox.run(&["inspect", "--archive", "my-classifier-1.0.0.tar"]);
    assert_eq!(run.code, Some(1));
    let sections: Vec<&str> = run.text().split("\n\n").collect();
    let verification: Vec<&str> = sections[2].lines().collect();
    let ok = |line: &&&str| line.starts_with("  OK  sha256:");
    let corrupted = |line: &&&str| line.starts_with("  CORRUPTED  sha256:");
    assert_eq!(verification.iter().filter(ok).count(), 2, "{}", sections[2]);
    assert_eq!(verification.iter().filter(corrupted).count(), 1);
    assert!(!run.text().contains("All layers verified"));
}
