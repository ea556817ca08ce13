//! `modeloci ls`, `cat` and `verify`: an archive without a mount.

use std::fs;
use std::process::Stdio;

use super::documented::{assert_documented, fields};
use super::harness::{Sandbox, noise};

#[test]
fn ls_lists_as_a_mount_does() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("model/nested/\u{202e}x", "");
    sandbox.pack();
    let list = |more: &[&str]| {
        let line = [&["ls", "m.tar"][..], more].concat();
        sandbox.run(&line).quiet().text().to_string()
    };
    assert_eq!(list(&[]), "config.json\nnested\nweights.bin\n");
    for root in ["/", "", "//", ".", "..", "nested/.."] {
        assert_eq!(list(&[root]), list(&[]), "{root}");
    }
    for nested in ["nested", "/nested/", "./nested/../nested"] {
        assert_eq!(list(&[nested]), "tokenizer.json\n\\u{202e}x\n", "{nested}");
    }
    let file = "nested/tokenizer.json";
    assert_eq!(list(&[file]), format!("{file}\n"));

    let long = list(&["-l"]);
    let rows: Vec<Vec<&str>> = long
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..3], ["-r--r--r--", "13", "B"]);
    assert_eq!(rows[1][..2], ["dr-xr-xr-x", "-"]);
    assert_eq!(rows[2][..3], ["-r--r--r--", "3.00", "MiB"]);
    // The archive's own time, in a form that sorts.
    assert!(
        rows[0][3].starts_with("20") && rows[0][3].ends_with('Z'),
        "{long}"
    );
    assert_eq!(rows[0][4], "config.json");

    assert_eq!(list(&["nested/../config.json"]), "config.json\n");
    for absent in ["absent", "config.json/x", "absent/../config.json"] {
        let run = sandbox.run(&["ls", "m.tar", absent]);
        let run = run.refused(1, &format!("{absent}: is not in the model"));
        assert!(
            run.stderr.contains("\nhint: `modeloci ls m.tar`"),
            "{}",
            run.stderr
        );
    }
    sandbox.run(&["ls", "absent.tar"]).refused(5, "absent.tar");
}

#[test]
fn ls_as_json_is_documented() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    let digest = sandbox.pack();
    let root = sandbox.run(&["ls", "m.tar", "--json"]).quiet().json();
    assert_documented(&root, &fields(&["`ls`"]));
    assert_eq!(root["manifest_digest"], digest.as_str());
    assert_eq!(root["path"], "");
    let entries = root["entries"].as_array().unwrap();
    for entry in entries {
        assert_documented(entry, &fields(&["`entries`"]));
    }
    assert_eq!(entries[1]["type"], "directory");
    assert!(entries[1]["size"].is_null());
    let nested = sandbox.run(&["ls", "m.tar", "/nested/", "--json"]).quiet();
    let nested = nested.json();
    assert_eq!(nested["path"], "nested");
    let entry = &nested["entries"][0];
    assert_eq!(entry["path"], "nested/tokenizer.json");
    assert_eq!(entry["name"], "tokenizer.json");
    assert_eq!(entry["size"], 10_000);
    let expected = modeloci::Digest::sha256(&files[1].1).to_string();
    assert_eq!(entry["digest"], expected);
}

#[test]
fn cat_prints_files_as_they_were() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    sandbox.write("model/empty", "");
    sandbox.pack();
    for (name, bytes) in &files {
        let run = sandbox.run(&["cat", "m.tar", name]).quiet();
        assert!(run.stdout == *bytes, "{name}");
    }
    assert_eq!(sandbox.run(&["cat", "m.tar", "empty"]).quiet().stdout, b"");
    let both = ["cat", "m.tar", "config.json", "empty", "/config.json"];
    assert_eq!(sandbox.run(&both).quiet().stdout, files[0].1.repeat(2));

    // Nothing is printed before all names are known.
    sandbox
        .run(&["cat", "m.tar", "config.json", "absent"])
        .refused(1, "absent: is not in the model");
    for directory in ["nested", "/"] {
        sandbox
            .run(&["cat", "m.tar", directory])
            .refused(1, "is a directory");
    }
    sandbox.run(&["cat", "m.tar"]).refused(2, "PATH");
}

#[test]
fn cat_of_another_packing_is_the_same() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    for compression in ["zstd", "none", "gzip:9"] {
        let line = format!(
            "pack model --name m --version 1 -o m.tar --force --quiet --compression {compression}"
        );
        sandbox.run(&line.split(' ').collect::<Vec<_>>()).quiet();
        let run = sandbox.run(&["cat", "m.tar", "weights.bin"]);
        assert!(run.stdout == files[2].1, "{compression}: {}", run.stderr);
    }
}

#[test]
fn cat_ends_quietly_with_its_reader() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(&["cat", "m.tar", "weights.bin"]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");

    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = sandbox.command(&["cat", "m.tar", "weights.bin"]);
    let output = command
        .stdout(full.unwrap())
        .stderr(Stdio::piped())
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(5));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot write standard output"), "{text}");
}

/// Flips a bit two million bytes into `weights.bin`.
fn damage(sandbox: &Sandbox) {
    let mut archive = fs::read(sandbox.path("m.tar")).unwrap();
    let needle = &noise(1, 2_000_064)[2_000_000..];
    let mut windows = archive.windows(64);
    let at = windows.position(|window| window == needle).unwrap();
    archive[at] ^= 1;
    sandbox.write("m.tar", &archive);
}

#[test]
fn d3_cat_prints_verified_bytes_only() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    sandbox.pack();
    damage(&sandbox);
    let run = sandbox.run(&["cat", "m.tar", "weights.bin"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("weights.bin"), "{}", run.stderr);
    // What was printed is what was packed, and ends before the chunk that is damaged.
    assert!(run.stdout.len() <= 2_000_000, "{}", run.stdout.len());
    assert!(files[2].1.starts_with(&run.stdout));
    let run = sandbox.run(&["cat", "m.tar", "config.json"]).quiet();
    assert_eq!(run.stdout, files[0].1);
}

#[test]
fn verify_of_a_path_looks_at_what_is_there_alone() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    sandbox.pack();
    let verify = |path: &str| sandbox.run(&["verify", "m.tar", path, "--json"]);
    let paths = |path: &str| {
        let document = verify(path).quiet().json();
        assert_eq!(document["verified"], true);
        let layers = document["layers"].as_array().unwrap().clone();
        assert!(layers.iter().all(|layer| layer["verified"] == true));
        let paths = layers
            .iter()
            .map(|layer| layer["path"].as_str().unwrap().to_string());
        paths.collect::<Vec<_>>()
    };
    let all: Vec<String> = files.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths(""), all);
    assert_eq!(paths("./"), all);
    assert_eq!(paths("config.json"), ["config.json"]);
    let below = |path: &String| path.starts_with("nested/");
    let expected: Vec<String> = all.iter().filter(|path| below(path)).cloned().collect();
    assert_eq!(paths("nested"), expected);
    assert_eq!(paths("/nested/../nested/"), expected);
    assert!(!expected.is_empty());
    let run = sandbox.run(&["verify", "m.tar", "nested"]).quiet();
    let heading = format!("Layer verification ({} layer", expected.len());
    assert!(run.text().starts_with(&heading), "{}", run.text());
    for absent in ["nes", "config.json/x", "absent"] {
        sandbox.run(&["verify", "m.tar", absent]).refused(1, absent);
    }
    // Damage elsewhere is not looked at.
    damage(&sandbox);
    verify("config.json").quiet();
    assert_eq!(verify("weights.bin").code, Some(1));
    assert_eq!(verify("").code, Some(1));
}

#[test]
fn verify_exits_as_inspect_does() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let digest = sandbox.pack();
    let run = sandbox
        .run(&["verify", "m.tar", "--digest", &digest])
        .quiet();
    let inspected = sandbox.run(&["inspect", "m.tar"]).quiet();
    let section = inspected.text().split("\n\n").nth(2).unwrap();
    assert_eq!(run.text(), format!("{section}\nDigest:    {digest}\n"));
    let json = |verb| sandbox.run(&[verb, "m.tar", "--json"]);
    assert_eq!(
        json("verify").quiet().json(),
        json("inspect").quiet().json()
    );

    let other = format!("sha256:{}", "0".repeat(64));
    for verb in [&["verify"][..], &["ls"], &["cat", "config.json"]] {
        let line = [&verb[..1], &["m.tar"], &verb[1..], &["--digest", &other]].concat();
        sandbox.run(&line).refused(4, &digest);
    }
    damage(&sandbox);
    for verb in ["verify", "inspect"] {
        let run = sandbox.run(&[verb, "m.tar"]);
        assert_eq!(run.code, Some(1));
        assert!(
            run.text().contains("  CORRUPTED  sha256:"),
            "{}",
            run.text()
        );
        assert!(
            run.stderr.contains("error: 1 of 3 layers failed"),
            "{}",
            run.stderr
        );
        assert_eq!(json(verb).code, Some(1));
    }
    sandbox.write("text.tar", "hello");
    for verb in [&["verify"][..], &["ls"], &["cat", "x"]] {
        let line = |name| [&verb[..1], &[name], &verb[1..]].concat();
        sandbox.run(&line("text.tar")).refused(3, "text.tar");
        sandbox.run(&line("absent.tar")).refused(5, "absent.tar");
    }
}
