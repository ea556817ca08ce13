//! Archives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use modeloci_test_support::forge::Layout;
use serde_json::Value;

use crate::support::sha256;
use crate::workspace::{Workspace, files_below, output};
use crate::{assert_still_says, golden, golden_json, plain};

/// All that are read.
const ARCHIVES: [&str; 4] = ["gzip", "zstd", "plain", "added"];
/// Those that `pack` writes with these options, byte for byte. It wrote `plain` without compression.
const WRITTEN: [(&str, &[&str]); 2] = [
    ("gzip", &[]),
    (
        "zstd",
        &["--compression", "zstd:3", "--chunk-digest", "sha256"],
    ),
];
/// The file that was added to `added`, and how.
const ADDED: &str = "templates/chat.jinja";
const ADDED_OPTIONS: [&str; 4] = ["--chunk-size", "64KiB", "--compression", "zstd:9"];
/// What all were packed with.
const OPTIONS: [&str; 13] = [
    "--quiet",
    "--name",
    "golden",
    "--version",
    "1.0.0",
    "--framework",
    "pytorch",
    "--architecture",
    "transformer",
    "--chunk-size",
    "64KiB",
    "--metadata",
    r#"{"parameters":1000,"task":"text-generation"}"#,
];
/// When.
const EPOCH: &str = "1700000000";

/// What a file must be.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    sha256: String,
    size: u64,
    executable: bool,
}

/// The files of an archive.
fn expected(archive: &str) -> BTreeMap<String, Expected> {
    let in_small = ["bin/run.sh", "config.json"];
    let tree = golden_json("tree.json");
    let files = tree.as_object().unwrap().iter();
    let mut expected = BTreeMap::new();
    for (path, file) in files {
        let is_in = match archive {
            "added" => path == ADDED || path.starts_with("wörter/") || in_small.contains(&&**path),
            _ => path != ADDED,
        };
        if is_in {
            let file = Expected {
                sha256: file["sha256"].as_str().unwrap().into(),
                size: file["size"].as_u64().unwrap(),
                executable: file["executable"].as_bool().unwrap(),
            };
            expected.insert(path.clone(), file);
        }
    }
    assert_eq!(expected.len(), if archive == "added" { 4 } else { 7 });
    expected
}

fn found(root: &Path) -> BTreeMap<String, Expected> {
    let mut found = BTreeMap::new();
    for (path, file) in files_below(root) {
        let meta = file.symlink_metadata().unwrap();
        assert!(meta.is_file(), "{path}");
        let bytes = fs::read(&file).unwrap();
        let file = Expected {
            sha256: sha256(&bytes),
            size: meta.len(),
            executable: meta.permissions().mode() & 0o111 != 0,
        };
        found.insert(path, file);
    }
    found
}

/// With copies of the archives, under the names that the golden documents have for them.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    for name in ARCHIVES {
        let name = format!("{name}.tar");
        fs::copy(golden(&name), workspace.path(name)).unwrap();
    }
    workspace
}

/// Every golden line is there, in their order; there may be more.
#[track_caller]
fn assert_has_lines(text: &[u8], golden: &Path) {
    let text = std::str::from_utf8(text).unwrap();
    let mut lines = text.lines();
    for line in fs::read_to_string(golden).unwrap().lines() {
        assert!(lines.any(|l| l == line), "no line {line:?} in {text}");
    }
}

#[test]
fn every_archive_verifies_and_is_described_as_it_was() {
    let workspace = workspace();
    for name in ARCHIVES {
        let archive = format!("{name}.tar");
        for command in ["inspect", "ls"] {
            let text = output(&mut workspace.modeloci(&[command, "--json", &archive]));
            let document: Value = serde_json::from_slice(&text).unwrap();
            let golden = golden_json(&format!("{name}.{command}.json"));
            assert_still_says(&document, &golden, &format!("{command} {name}"));
        }
        output(&mut workspace.modeloci(&["verify", &archive]));
    }
}

#[test]
fn what_is_printed_for_people_has_the_same_lines() {
    let workspace = workspace();
    let text = output(&mut workspace.modeloci(&["inspect", "gzip.tar"]));
    assert_has_lines(&text, &golden("gzip.inspect.txt"));
    let text = output(&mut workspace.modeloci(&["ls", "-l", "gzip.tar"]));
    assert_has_lines(&text, &golden("gzip.ls.txt"));
}

#[test]
fn every_archive_unpacks_to_the_same_files() {
    let workspace = workspace();
    for name in ARCHIVES {
        let archive = format!("{name}.tar");
        output(&mut workspace.modeloci(&["unpack", &archive, name]));
        assert_eq!(found(&workspace.path(name)), expected(name), "{name}");
        for (path, expected) in expected(name) {
            let bytes = output(&mut workspace.modeloci(&["cat", &archive, &path]));
            assert_eq!(sha256(&bytes), expected.sha256, "{name} {path}");
        }
    }
}

#[test]
fn every_archive_mounts_as_the_same_files() {
    let workspace = workspace();
    for name in ARCHIVES {
        let mount = workspace.mount(&workspace.path(format!("{name}.tar")));
        assert_eq!(found(&mount.0), expected(name), "{name}");
    }
}

/// The tree that the archives were made of, as the golden archive says and `tree.json` confirms.
fn tree(workspace: &Workspace, archive: &str) {
    output(&mut workspace.modeloci(&["unpack", &format!("{archive}.tar"), "model"]));
    assert_eq!(found(&workspace.path("model")), expected(archive));
}

#[test]
fn pack_writes_the_same_bytes() {
    let workspace = workspace();
    tree(&workspace, "gzip");
    for (name, options) in WRITTEN {
        let mut command = workspace.modeloci(&["pack", "model", "-o", "new.tar", "--force"]);
        command.args(OPTIONS).args(options);
        output(command.env("SOURCE_DATE_EPOCH", EPOCH));
        let new = fs::read(workspace.path("new.tar")).unwrap();
        let same = new == fs::read(golden(&format!("{name}.tar"))).unwrap();
        assert!(same, "{name} is not what it was");
    }
}

#[test]
fn add_layer_writes_the_same_bytes() {
    let workspace = workspace();
    tree(&workspace, "added");
    let added = workspace.path("model").join(ADDED);
    fs::rename(&added, workspace.path("added")).unwrap();
    fs::remove_dir(added.parent().unwrap()).unwrap();
    let mut command = workspace.modeloci(&["pack", "model", "-o", "new.tar"]);
    command.args(OPTIONS).args(["--compression", "gzip:9"]);
    output(command.env("SOURCE_DATE_EPOCH", EPOCH));
    let mut command = workspace.modeloci(&["add-layer", "new.tar", "added", "--path", ADDED]);
    command.args(ADDED_OPTIONS).env("SOURCE_DATE_EPOCH", EPOCH);
    output(&mut command);
    let new = fs::read(workspace.path("new.tar")).unwrap();
    assert!(new == fs::read(golden("added.tar")).unwrap());
}

/// What other tests make to have plain layers is what was written.
#[test]
fn the_forged_plain_archive_is_the_golden_one() {
    let workspace = workspace();
    tree(&workspace, "gzip");
    let mut command = workspace.modeloci(&["pack", "model", "-o", "new.tar"]);
    command.args(OPTIONS).args(["--compression", "none"]);
    output(command.env("SOURCE_DATE_EPOCH", EPOCH));
    let new = workspace.path("new.tar");
    plain::rewrite(&new);
    let blobs = |archive: &Path| {
        let layout = Layout::parse(&fs::read(archive).unwrap());
        let names = layout.entries.iter().map(|(name, _)| name.clone());
        let mut blobs: Vec<_> = names.filter(|name| name.starts_with("blobs/")).collect();
        blobs.sort();
        (blobs, layout.get("index.json").to_vec())
    };
    assert_eq!(blobs(&new), blobs(&golden("plain.tar")));
}

#[test]
fn add_layer_keeps_the_tables_of_plain_layers() {
    let workspace = workspace();
    workspace.write("more", b"more");
    output(&mut workspace.modeloci(&["add-layer", "plain.tar", "more"]));
    let text = output(&mut workspace.modeloci(&["inspect", "--json", "plain.tar"]));
    let document: Value = serde_json::from_slice(&text).unwrap();
    let layers = document["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 8);
    for layer in layers {
        assert_eq!(
            (&layer["seekable"], &layer["verified"]),
            (&true.into(), &true.into()),
            "{layer}"
        );
    }
    // The tables are there, and a referrer keeps them with the manifest.
    let referrer = |archive: &Path| {
        let layout = Layout::parse(&fs::read(archive).unwrap());
        let found = layout.entries.iter().find_map(|(_, bytes)| {
            let document: Value = serde_json::from_slice(bytes).ok()?;
            document.get("subject").is_some().then_some(document)
        });
        found.unwrap()
    };
    let (old, new) = (
        referrer(&golden("plain.tar")),
        referrer(&workspace.path("plain.tar")),
    );
    assert_eq!(old["layers"], new["layers"]);
    assert_eq!(old["layers"].as_array().unwrap().len(), 7);
    assert_eq!(new["subject"]["digest"], document["manifest_digest"]);
}
