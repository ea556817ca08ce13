//! `modeloci pack` and `add-layer`: what they print beside what the original tool documents (see
//! `original`). What they write is tested in the library.

use std::fs;
use std::process::Stdio;

use super::harness::Sandbox;

#[test]
fn the_default_output_stands_beside_the_directory() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let line = [
        "pack",
        "--name",
        "m",
        "--version",
        "1",
        "--quiet",
        "--model-dir",
    ];
    for (dir, output) in [
        ("model/nested/", "model/m-1.tar"),
        ("model/nested/..", "m-1.tar"),
    ] {
        let args: Vec<&str> = line.iter().chain(&[dir]).copied().collect();
        sandbox.run(&args).quiet();
        fs::remove_file(sandbox.path(output)).unwrap();
    }
}

#[test]
fn json_has_everything() {
    let sandbox = Sandbox::new();
    sandbox.model();
    fs::create_dir(sandbox.path("model/empty")).unwrap();
    let run = sandbox.run(&["pack", "model", "--name", "m", "--version", "1", "--json"]);
    assert_eq!(run.code, Some(0));
    let json = run.json();
    let size = fs::metadata(sandbox.path("m-1.tar")).unwrap().len();
    assert_eq!(json["archive"], "m-1.tar");
    assert_eq!(json["files"], 3);
    assert_eq!(json["bytes"], 13 + 10_000 + (3 << 20) + 17);
    assert_eq!(json["archive_bytes"], size);
    assert_eq!(json["layers"].as_array().unwrap().len(), 3);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 0);
}

#[test]
fn to_stdout_the_archive_is_the_same() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    let line = [
        "pack",
        "model",
        "--name",
        "m",
        "--version",
        "1.0",
        "--output",
        "-",
    ];
    let run = sandbox.run(&line);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout == fs::read(sandbox.path("m.tar")).unwrap());
    assert!(
        run.stderr.starts_with("Packaged model: -\n"),
        "{}",
        run.stderr
    );
    let line = [&line[..], &["--json"]].concat();
    sandbox.run(&line).refused(2, "--json");
}

#[test]
fn k10_an_existing_archive_needs_force() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("m-1.tar", "precious");
    let line = ["pack", "model", "--name", "m", "--version", "1"];
    let run = sandbox.run(&line).refused(1, "m-1.tar");
    assert!(run.stderr.contains("--force"), "{}", run.stderr);
    assert_eq!(fs::read(sandbox.path("m-1.tar")).unwrap(), b"precious");
    sandbox.run(&[&line[..], &["--force"]].concat()).quiet();
    sandbox.run(&["inspect", "m-1.tar"]).quiet();
}

#[test]
fn k10_a_missing_directory_is_what_the_user_hears() {
    let sandbox = Sandbox::new();
    sandbox.write("nowhere-1.tar", "precious");
    for dir in ["nowhere", "no/where"] {
        for output in [
            &[][..],
            &["-o", "nowhere-1.tar"],
            &["-o", "no/such/dir.tar"],
        ] {
            let line = ["pack", dir, "--name", "nowhere", "--version", "1"];
            let expected = format!("model directory {dir} does not exist");
            let line = [&line[..], output].concat();
            sandbox.run(&line).refused(2, &expected);
        }
    }
    assert_eq!(sandbox.names(), ["nowhere-1.tar"]);
}

#[test]
fn k12_bad_names_and_metadata_are_usage_errors() {
    let sandbox = Sandbox::new();
    sandbox.model();
    for metadata in ["", "[]", "{", "{\"a\":1,\"a\":2}", "null", "{} {}"] {
        let line = [
            "pack",
            "model",
            "--name",
            "m",
            "--version",
            "1",
            "--metadata",
            metadata,
        ];
        let run = sandbox
            .run(&line)
            .refused(2, "--metadata is invalid JSON: ");
        assert_eq!(run.stderr.matches("JSON").count(), 1, "{}", run.stderr);
    }
    for (name, version) in [
        ("", "1"),
        ("a/", "1"),
        ("a//b", "1"),
        ("a/.b", "1"),
        ("../a", "1"),
        ("a\nb", "1"),
        ("a", ""),
        ("a", "1/2"),
    ] {
        sandbox
            .run(&["pack", "model", "--name", name, "--version", version])
            .refused(2, "");
    }
    assert_eq!(sandbox.names(), ["model"]);
}

#[test]
fn add_layer_keeps_the_archive_true() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let before = sandbox.pack();
    sandbox.write("extra.txt", "more");
    let run = sandbox
        .run(&[
            "add-layer",
            "m.tar",
            "extra.txt",
            "--path",
            "docs/extra.txt",
            "--json",
        ])
        .quiet();
    let after = run.json()["manifest_digest"].clone();
    assert_ne!(after, before);
    let json = sandbox.run(&["inspect", "m.tar", "--json"]).quiet().json();
    assert_eq!(json["manifest_digest"], after);
    assert_eq!(json["files"], 4);
    assert_eq!(json["verified"], true);
    let run = sandbox
        .run(&[
            "add-layer",
            "m.tar",
            "extra.txt",
            "--path",
            "docs/extra.txt",
        ])
        .refused(1, "docs/extra.txt");
    assert!(run.stderr.contains("hint: --replace"), "{}", run.stderr);
    // Advice is given where it helps.
    let run = sandbox.run(&["add-layer", "m.tar", "model/config.json"]);
    assert!(
        run.refused(1, "config.json")
            .stderr
            .contains("; --path gives"),
        "a name that is taken"
    );
    let run = sandbox.run(&["add-layer", "m.tar", "model"]);
    let run = run.refused(1, "is not a regular file");
    assert!(!run.stderr.contains("hint"), "{}", run.stderr);
}

#[test]
fn k25_layers_are_replaced_and_removed() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    sandbox.write("config.json", "{\"new\": true}");
    let run = sandbox
        .run(&["add-layer", "m.tar", "config.json", "--replace", "--json"])
        .quiet();
    let json = sandbox.run(&["inspect", "m.tar", "--json"]).quiet().json();
    assert_eq!(run.json()["manifest_digest"], json["manifest_digest"]);
    assert_eq!(
        (&json["files"], &json["verified"]),
        (&3.into(), &true.into())
    );
    let run = sandbox.run(&["cat", "m.tar", "config.json"]).quiet();
    assert_eq!(run.stdout, b"{\"new\": true}");
    sandbox.write("new.json", "{}");
    for (file, what) in [
        ("config.json", "Replaced layer in: /"),
        ("new.json", "Added layer to: /"),
        ("new.json", "Replaced layer in: /"),
    ] {
        let run = sandbox
            .run(&["add-layer", "m.tar", file, "--replace"])
            .quiet();
        let text = String::from_utf8(run.stdout).unwrap();
        assert!(text.starts_with(what), "{text}");
    }
    sandbox.run(&["remove-layer", "m.tar", "new.json"]).quiet();

    let run = sandbox
        .run(&["remove-layer", "m.tar", "config.json"])
        .quiet();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.starts_with("Removed layer from: /"), "{text}");
    assert!(text.contains("2 ("), "{text}");
    let run = sandbox.run(&["remove-layer", "m.tar", "config.json"]);
    run.refused(1, "m.tar: has no layer \"config.json\"");
    let json = sandbox.run(&["verify", "m.tar", "--json"]).quiet().json();
    assert_eq!(json["files"], 2);
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    // `/dev/full` accepts an open and fails the write; a pipe without reader breaks.
    for line in [
        &["inspect", "m.tar"][..],
        &["inspect", "m.tar", "--json"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = sandbox
            .command(line)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn();
        let output = child.unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{line:?}");
    }
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = sandbox.command(&["inspect", "m.tar"]);
    let output = command
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot write standard output"), "{text}");
}

#[test]
fn k16_incomplete_models_and_secrets_need_an_option() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let line = ["pack", "model", "--name", "m", "--version", "1"];
    for (name, option) in [
        ("weights.gguf.part", "--allow-incomplete"),
        (".env", "--allow-secrets"),
    ] {
        let path = sandbox.write(&format!("model/{name}"), "x");
        let run = sandbox.run(&line).refused(1, name);
        assert!(run.stderr.contains(option), "{}", run.stderr);
        assert_eq!(sandbox.names(), ["model"]);
        let run = sandbox.run(&[&line[..], &[option]].concat());
        assert_eq!(run.code, Some(0));
        assert!(run.stderr.starts_with("warning: "), "{}", run.stderr);
        assert!(run.stderr.contains(name), "{}", run.stderr);
        fs::remove_file(path).unwrap();
        fs::remove_file(sandbox.path("m-1.tar")).unwrap();
    }
}

#[test]
fn k18_what_is_left_out_is_said() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("model/.git/config", "x");
    sandbox.write("model/.git/HEAD", "x");
    sandbox.write("model/a~", "x");
    sandbox.write("model/.modelociignore", "nested/\n");
    let line = ["pack", "model", "--name", "m", "--version", "1", "--force"];
    let with = |more: &[&str]| sandbox.run(&[&line[..], more].concat()).quiet();
    let run = with(&["--exclude", "*.bin"]);
    let last = run.text().lines().last().unwrap().to_string();
    assert_eq!(
        last,
        "Left out:  5 (1 *~, 1 .git, 1 /.modelociignore by default; 1 nested/ by .modelociignore; \
         1 *.bin by --exclude)"
    );
    let json = with(&["--include", "*.json", "--json"]).json();
    assert_eq!(json["files"], 1);
    let expected = serde_json::json!([
        {"by": "default", "pattern": "*~", "entries": 1},
        {"by": "default", "pattern": ".git", "entries": 1},
        {"by": "default", "pattern": "/.modelociignore", "entries": 1},
        {"by": ".modelociignore", "pattern": "nested/", "entries": 1},
        {"by": "--include", "pattern": "", "entries": 1},
    ]);
    assert_eq!(json["left_out"], expected);
    assert_eq!(
        with(&["--no-default-excludes", "--json"]).json()["files"],
        6
    );
    // All of the defaults are in the help.
    let help = sandbox.run(&["pack", "--help"]).quiet();
    for pattern in modeloci::pack::DEFAULT_EXCLUDES {
        let shown = pattern.trim_start_matches("**/").trim_start_matches('/');
        assert!(help.text().contains(shown), "{pattern}");
    }
}

#[test]
fn k19_a_single_file_is_packed_beside_itself() {
    let sandbox = Sandbox::new();
    sandbox.write("models/m.gguf", "weights");
    let line = [
        "pack",
        "models/m.gguf",
        "--name",
        "m",
        "--version",
        "1",
        "--json",
    ];
    let json = sandbox.run(&line).quiet().json();
    assert_eq!(json["archive"], "models/m-1.tar");
    assert_eq!(json["files"], 1);
    sandbox
        .run(&["unpack", "models/m-1.tar", "out", "--quiet"])
        .quiet();
    assert_eq!(fs::read(sandbox.path("out/m.gguf")).unwrap(), b"weights");
}

#[test]
fn k12_a_name_with_an_organisation_stays_whole() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let name = "meta-llama/Llama-3.1-8B";
    let run = sandbox
        .run(&["pack", "model", "--name", name, "--version", "1.0"])
        .quiet();
    assert!(
        run.text().contains(&format!("  Name        : {name}\n")),
        "{}",
        run.text()
    );
    assert_eq!(sandbox.names(), ["Llama-3.1-8B-1.0.tar", "model"]);
    let json = sandbox
        .run(&["inspect", "Llama-3.1-8B-1.0.tar", "--json"])
        .quiet();
    assert!(json.text().contains(name), "{}", json.text());
}
