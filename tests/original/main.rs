//! Archives that the original Python tool wrote: `inspect`, `unpack` and `mount` give exactly the
//! files that `expected.json` lists.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::{self as support, workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use workspace::{Workspace, files_below, output, shell};

/// Archive, and the links in it that must be left out: path and target. Other links of the archive
/// lead to a file of the model and are served as regular files.
const ARCHIVES: [(&str, &[(&str, &str)]); 5] = [
    ("added-1.0.0.tar", &[]),
    ("basic-pitch-1.0.0.tar", &[]),
    ("long-2.0.0-rc.1+build.5.tar", &[]),
    ("odd-1.0.0.tar", &[("abs-outside", "/etc/hostname")]),
    ("zero-1.0.0.tar", &[]),
];
/// What the original stored of links that lead to a file of the model: path and that file.
const SERVED_LINKS: [(&str, &str); 2] = [
    ("link-to-weights", "weights.bin"),
    ("sub/uplink.json", "config.json"),
];

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    sha256: String,
    size: u64,
    executable: bool,
    /// None of a link, whose own time nobody recorded.
    mtime: Option<i64>,
}

fn archive(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/original")
        .join(name)
}

/// The config and the files of an archive.
fn expected(name: &str) -> (Value, BTreeMap<String, Expected>) {
    let text = fs::read_to_string(archive("expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let archive = &all[name];
    let mut files: BTreeMap<String, Expected> = BTreeMap::new();
    for (path, file) in archive["files"].as_object().unwrap() {
        let mode = file["mode"].as_str().unwrap().trim_start_matches("0o");
        files.insert(
            path.clone(),
            Expected {
                sha256: file["sha256"].as_str().unwrap().into(),
                size: file["size"].as_u64().unwrap(),
                executable: u32::from_str_radix(mode, 8).unwrap() & 0o111 != 0,
                mtime: Some(file["mtime"].as_f64().unwrap().floor() as i64),
            },
        );
    }
    for (link, target) in SERVED_LINKS {
        if archive["symlinks"][link].is_string() {
            let target = Expected {
                mtime: None,
                ..files[target].clone()
            };
            files.insert(link.into(), target);
        }
    }
    (archive["config"].clone(), files)
}

/// The files of a directory, and nothing but regular files.
fn found(root: &Path) -> BTreeMap<String, Expected> {
    let mut files = BTreeMap::new();
    for (name, path) in files_below(root) {
        let bytes = fs::read(&path).unwrap();
        let meta = path.symlink_metadata().unwrap();
        assert!(meta.is_file(), "{name}");
        assert_eq!(meta.len(), bytes.len() as u64, "{name}");
        files.insert(
            name,
            Expected {
                sha256: support::sha256(&bytes),
                size: meta.len(),
                executable: meta.mode() & 0o111 != 0,
                mtime: Some(meta.mtime()),
            },
        );
    }
    files
}

/// Without the times where they are not known.
fn assert_same(
    name: &str,
    mut found: BTreeMap<String, Expected>,
    mut expected: BTreeMap<String, Expected>,
    times: bool,
) {
    for (path, file) in &mut expected {
        if file.mtime.is_none() || !times {
            file.mtime = None;
            if let Some(found) = found.get_mut(path) {
                found.mtime = None;
            }
        }
    }
    assert_eq!(found, expected, "{name}");
}

/// The permission bits of every file and directory below `root`, without `root`.
fn modes(root: &Path) -> BTreeSet<(bool, u32)> {
    let mut modes = BTreeSet::new();
    for (_, path) in files_below(root) {
        let mut path = path.as_path();
        while path != root {
            let meta = path.symlink_metadata().unwrap();
            modes.insert((meta.is_dir(), meta.mode() & 0o7777));
            path = path.parent().unwrap();
        }
    }
    modes
}

#[test]
fn inspect_lists_and_verifies_every_file() {
    let workspace = Workspace::new();
    for (name, left_out) in ARCHIVES {
        let (config, expected) = expected(name);
        let text = output(
            workspace
                .modeloci(&["inspect", "--json"])
                .arg(archive(name)),
        );
        let report: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(report["model"], config, "{name}");
        assert_eq!(report["verified"], true, "{name}");
        assert_eq!(report["files"], expected.len(), "{name}");
        let layers = report["layers"].as_array().unwrap();
        let found: BTreeMap<_, _> = layers
            .iter()
            .map(|layer| {
                assert_eq!(layer["verified"], true, "{name}: {layer}");
                let digest = layer["digest"].as_str().unwrap();
                let file = Expected {
                    sha256: digest.strip_prefix("sha256:").unwrap().into(),
                    size: layer["size"].as_u64().unwrap(),
                    executable: layer["executable"].as_bool().unwrap(),
                    mtime: None,
                };
                (layer["path"].as_str().unwrap().to_string(), file)
            })
            .collect();
        assert_same(name, found, expected, false);
        // What is left out is said, once each.
        let notes: Vec<_> = report["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        for (link, target) in left_out {
            let about = notes
                .iter()
                .filter(|note| note.contains(link) && note.contains(target));
            assert_eq!(about.count(), 1, "{name}: {notes:?}");
        }
        let links = notes.iter().filter(|note| note.contains("link"));
        assert_eq!(links.count(), left_out.len(), "{name}: {notes:?}");
    }
}

#[test]
fn unpack_restores_every_file() {
    let workspace = Workspace::new();
    for (name, left_out) in ARCHIVES {
        let (config, expected) = expected(name);
        let directory = workspace.path(format!("unpacked-{name}"));
        let command = workspace
            .modeloci(&["unpack", "--json"])
            .arg(archive(name))
            .arg(&directory)
            .output()
            .unwrap();
        let stderr = String::from_utf8(command.stderr).unwrap();
        assert!(command.status.success(), "{name}: {stderr}");
        for (link, _) in left_out {
            assert!(stderr.contains(link), "{name}: {stderr}");
        }
        let report: Value = serde_json::from_slice(&command.stdout).unwrap();
        assert_eq!(report["model"], config, "{name}");
        // The unpacked files are the user's own: no set-user-id bit, no foreign permissions.
        let allowed = [(true, 0o755), (false, 0o644), (false, 0o755)];
        assert!(
            modes(&directory).iter().all(|mode| allowed.contains(mode)),
            "{:?}",
            modes(&directory)
        );
        assert_same(name, found(&directory), expected, false);
    }
}

#[test]
fn the_mode_of_unpacked_files_follows_the_umask() {
    let workspace = Workspace::new();
    let directory = workspace.path("unpacked");
    shell(
        "umask 027; \"$1\" unpack \"$2\" \"$3\"",
        &[
            Path::new(env!("CARGO_BIN_EXE_modeloci")),
            &archive("odd-1.0.0.tar"),
            &directory,
        ],
    );
    let allowed = BTreeSet::from([(true, 0o750), (false, 0o640), (false, 0o750)]);
    assert_eq!(modes(&directory), allowed);
}

#[test]
fn a_mount_serves_every_file() {
    let workspace = Workspace::new();
    for (name, left_out) in ARCHIVES {
        let (config, expected) = expected(name);
        let mount = workspace.mount(&archive(name));
        // A time of 0 is none: then the archive's stands.
        let time = archive(name).metadata().unwrap().mtime();
        let mut shown = expected.clone();
        for file in shown.values_mut().filter(|file| file.mtime == Some(0)) {
            file.mtime = Some(time);
        }
        assert_same(name, found(&mount.0), shown, true);
        let allowed = [(true, 0o555), (false, 0o444), (false, 0o555)];
        assert!(
            modes(&mount.0).iter().all(|mode| allowed.contains(mode)),
            "{:?}",
            modes(&mount.0)
        );
        assert_eq!(mount.0.metadata().unwrap().mode() & 0o7777, 0o555);
        for (link, _) in left_out {
            let error = mount.0.join(link).symlink_metadata().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{link}");
        }
        if workspace::has("getfattr") {
            let text = shell(
                "getfattr --absolute-names --only-values -n user.modeloci.name \"$1\"",
                &[&mount.0],
            );
            assert_eq!(String::from_utf8(text).unwrap(), config["model_name"]);
        }
        // A second reader over the mount, one that is not ours.
        let mut list = String::new();
        for (path, file) in &expected {
            if !path.contains(['\n', '\\']) {
                list.push_str(&format!("{}  {path}\n", file.sha256));
            }
        }
        if !list.is_empty() {
            let list = workspace.write("list", list.as_bytes());
            shell(
                "cd \"$1\" && sha256sum --quiet --strict -c \"$2\"",
                &[&mount.0, &list],
            );
        }
    }
}

#[test]
fn p6_names_of_the_original_tool_cannot_forge_lines() {
    let workspace = Workspace::new();
    let text = output(
        workspace
            .modeloci(&["inspect"])
            .arg(archive("odd-1.0.0.tar")),
    );
    let text = String::from_utf8(text).unwrap();
    let (_, expected) = expected("odd-1.0.0.tar");
    assert!(expected.contains_key("new\nline.txt"));
    assert!(text.contains("  new\\u{a}line.txt "), "{text}");
    // The model, one line per file, the verdict, and what identifies it.
    let lines: Vec<_> = text.lines().collect();
    assert!(
        !lines.iter().any(|line| line.starts_with("line.txt")),
        "{text}"
    );
    let verdict = lines
        .iter()
        .position(|line| *line == "All layers verified.");
    let rest: Vec<_> = lines[verdict.unwrap() + 1..].to_vec();
    assert_eq!(rest.len(), 3, "{text}");
    assert!(rest[2].starts_with("Digest:    sha256:"), "{text}");
}
