//! p: the paths of files.

use std::fs;

use crate::forge::{Layout, Tar, gzip, layer};
use crate::mounted::Mounted;
use crate::sandbox::{Sandbox, assert_tree};

/// An archive of one file whose title is `path`, in a layer that is in order.
fn titled(path: &str) -> Layout {
    Layout::of_layers([(path, layer("x", b"content"))])
}

#[track_caller]
fn refuses(path: &str, words: &[&str]) {
    let sandbox = Sandbox::new();
    let layout = titled(path);
    let digest = layout.layer_digest(0);
    sandbox.refuses(
        layout.to_bytes(),
        3,
        &[&["bad.tar", &digest], words].concat(),
    );
}

#[test]
fn p1_paths_that_are_not_plain_and_relative() {
    for path in ["/", "/x", "/etc/passwd"] {
        refuses(path, &["absolute"]);
    }
    for path in ["..", "../x", "a/../x", "a/..", "../../../../../../tmp/x"] {
        refuses(path, &["\"..\" component"]);
    }
    for path in [".", "./x", "a/./x", "a/."] {
        refuses(path, &["\".\" component"]);
    }
    for path in ["a//x", "a/", "a/b/"] {
        refuses(path, &["empty component"]);
    }
    refuses("", &["is empty"]);
}

#[test]
fn p2_control_characters() {
    for path in [
        "a\0b",
        "a\nb",
        "a\tb",
        "\u{1b}[31mred",
        "a\u{7f}",
        "a\u{85}b",
    ] {
        refuses(path, &["control character"]);
    }
}

#[test]
fn p2_a_backslash_is_an_ordinary_character() {
    for path in ["..\\..\\x", "C:\\x", "a\\b"] {
        let name = path;
        let layout = Layout::of([(path, &b"content"[..])]);
        Sandbox::new().accepts(layout.to_bytes(), &[(name, b"content".to_vec())]);
    }
}

#[test]
fn p3_paths_that_are_too_long() {
    refuses(
        &"n".repeat(256),
        &["component of 256 bytes", "limit is 255"],
    );
    refuses(&"ü".repeat(128), &["component of 256 bytes"]);
    refuses(
        &vec!["d"; 65].join("/"),
        &["65 components deep", "limit is 64"],
    );
    let long = vec!["n".repeat(200); 21].join("/");
    refuses(&long, &["has 4220 bytes", "limit is 4095"]);
    // The longest of each that is allowed.
    let deep = vec!["d"; 64].join("/");
    let layout = Layout::of([(&deep[..], &b"content"[..])]);
    Sandbox::new().accepts(layout.to_bytes(), &[(&deep, b"content".to_vec())]);
}

#[test]
fn p4_duplicates_and_files_that_are_directories() {
    let of =
        |paths: [&'static str; 2]| Layout::of(paths.map(|path| (path, path.as_bytes()))).to_bytes();
    let twice = Layout::of_layers([("x", layer("x", b"1")), ("x", layer("x", b"2"))]);
    let sandbox = Sandbox::new();
    sandbox.refuses(twice.to_bytes(), 3, &["bad.tar", "\"x\"", "two layers"]);
    for paths in [["a", "a/b"], ["a/b", "a"], ["a/b", "a/b/c/d"]] {
        let sandbox = Sandbox::new();
        let shorter = paths.iter().min_by_key(|path| path.len()).unwrap();
        let quoted = format!("\"{shorter}\"");
        let below = format!("\"{shorter}/");
        sandbox.refuses(of(paths), 3, &["bad.tar", &quoted, &below]);
    }
}

#[test]
fn p5_names_that_differ_in_case_or_unicode_form() {
    // e with an accent, composed and decomposed.
    let names = ["Model", "MODEL", "model", "\u{e9}", "e\u{301}"];
    let layout = Layout::of(names.map(|name| (name, name.as_bytes())));
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", layout.to_bytes());
    let files = names.map(|name| (name, name.as_bytes().to_vec()));
    let mounted = Mounted::new(&sandbox, "a.tar");
    assert_tree(&mounted.path(), &files);
    drop(mounted);
    sandbox.accepts(layout.to_bytes(), &files);
}

const EVIL: &str = "evil \u{202e}gpj\u{2066}.exe\u{200b}";

#[test]
fn p6_what_drives_a_terminal_is_escaped_wherever_it_is_printed() {
    let sandbox = Sandbox::new();
    let mut layout = Layout::of([(EVIL, &b"content"[..])]);
    let config = serde_json::json!({
        "model_name": "m\u{1b}[2J", "version": "1\nerror: forged", "framework": "\u{9b}31m",
        "architecture": EVIL, "metadata": {"\u{1b}]0;t\u{7}": "\u{202e}"}
    });
    let config = serde_json::to_vec(&config).unwrap();
    layout.add_blob(&config);
    layout.edit_manifest(|m| {
        m["config"] = crate::forge::descriptor(crate::forge::CONFIG, &config);
    });
    sandbox.write("a.tar", layout.to_bytes());
    let name = layout.layer_name(0);
    layout.damage(&name, |bytes| bytes[30] ^= 1);
    sandbox.write("bad.tar", layout.to_bytes());
    for args in [
        &["inspect", "a.tar"][..],
        &["inspect", "--json", "a.tar"],
        &["inspect", "--no-verify", "-vv", "a.tar"],
        &["unpack", "a.tar", "out"],
        &["unpack", "-vv", "a.tar", "out2", "--json"],
        &["unpack", "a.tar", "out", "--include", "\u{1b}[2J*"],
        &["inspect", "bad.tar"],
        &["inspect", "--json", "bad.tar"],
        &["unpack", "bad.tar", "out3"],
        &["inspect", "absent \u{1b}[2J\u{202e}.tar"],
        &["inspect", "--\u{1b}[2J"],
        &["\u{1b}[2J"],
    ] {
        let run = sandbox.run(args).sober();
        for text in [run.text(), &run.stderr] {
            let drives = |c: char| {
                (c.is_control() && c != '\n')
                    || ['\u{202e}', '\u{2066}', '\u{200b}', '\u{9b}'].contains(&c)
            };
            assert!(!text.contains(drives), "{args:?}: {text:?}");
            assert!(!text.lines().any(|line| line == "error: forged"));
        }
    }
    // Only what is printed is escaped, not the file.
    assert_tree(&sandbox.path("out"), &[(EVIL, b"content".to_vec())]);
}

/// What stands in the layer's own tar never decides where a file is written.
#[test]
fn p1_names_inside_a_layer_lead_nowhere() {
    for inner in ["../../evil", "/tmp/evil", "a/../../evil", "evil\0x"] {
        let sandbox = Sandbox::new();
        let blob = gzip(&Tar::new().file(inner, b"content").end());
        sandbox.write("box/a.tar", Layout::of_layers([("x", blob)]).to_bytes());
        let run = sandbox
            .run_bounded(&["unpack", "box/a.tar", "box/out"])
            .sober();
        let mut names = crate::sandbox::names(&sandbox.path("box"));
        names.retain(|name| name != "a.tar");
        if run.code == Some(0) {
            assert_eq!(names, ["out"]);
            assert_tree(&sandbox.path("box/out"), &[("x", b"content".to_vec())]);
        } else {
            assert_eq!(names, [""; 0]);
            run.one_error(&["a.tar"]);
        }
        assert_eq!(sandbox.names(), ["box"]);
        assert!(fs::symlink_metadata("/tmp/evil").is_err());
    }
}
