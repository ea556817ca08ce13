//! Help, versions, wrong usage, exit codes.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use super::harness::Sandbox;

#[test]
fn help_goes_to_stdout_and_fits() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).quiet();
    for word in [
        "pack",
        "inspect",
        "verify",
        "ls",
        "cat",
        "unpack",
        "mount",
        "umount",
        "status",
        "add-layer",
        "remove-layer",
        "Examples",
    ] {
        assert!(help.text().contains(word), "{word}");
    }
    assert!(!help.text().contains("convert"));
    for verb in [
        "pack",
        "inspect",
        "verify",
        "ls",
        "cat",
        "unpack",
        "mount",
        "umount",
        "status",
        "add-layer",
        "remove-layer",
    ] {
        let long = sandbox.run(&[verb, "--help"]).quiet();
        let short = sandbox.run(&[verb, "-h"]).quiet();
        assert_eq!(long.text(), short.text(), "{verb}");
        assert!(long.text().lines().count() <= 50, "{verb}");
        assert!(!long.text().contains("system-log"), "{verb}");
    }
    let version = sandbox.run(&["--version"]).quiet();
    assert_eq!(
        version.text(),
        concat!("modeloci ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_usage_exits_2() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("d")).unwrap();
    let pack = ["pack", "d", "--name", "n", "--version", "1"];
    for extra in [
        &["--compression", "brotli"][..],
        &["--compression", "gzip:10"],
        &["--compression", "gzip:0"],
        &["--compression", "zstd:20"],
        &["--chunk-size", "3MiB"],
        &["--chunk-size", "1"],
        &["--jobs", "0"],
        &["--profile", "modelpack"],
        &["--model-dir", "e"],
        &["--chunk-digest", "md5"],
        &["--verbose", "--quiet"],
        &["--no-such-option"],
    ] {
        let line: Vec<&str> = pack.iter().chain(extra).copied().collect();
        sandbox.run(&line).refused(2, "--help");
    }
    for line in [
        &["pack", "d"][..],
        &["inspect"],
        &["inspect", "a", "b"],
        &["inspect", "a", "--archive", "a"],
        &["inspect", "a", "--digest", "sha256:abc"],
        &["unpack", "a"],
        &["unpack", "--archive", "a", "--output", "b", "c"],
        &["mount", "a"],
        &["mount", "a", "b", "--cache-size", "1MB"],
        &["mount", "a", "b", "--uid", "root"],
        &["mount", "a", "b", "--gid", "4294967295"],
        &["nonsense"],
    ] {
        sandbox.run(line).refused(2, "--help");
    }
    assert_eq!(sandbox.run(&[]).code, Some(2));
}

#[test]
fn a_mount_to_write_to_is_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    for options in ["rw", "noexec,rw"] {
        let line = ["mount", "a", "b", "-o", options];
        sandbox.run(&line).refused(2, "mounted read-only");
    }
}

#[test]
fn an_index_is_kept_somewhere_or_nowhere() {
    let sandbox = Sandbox::new();
    for line in [
        &["mount", "a", "b", "--index-dir", "c", "-o", "no_index"][..],
        &["mount", "a", "b", "--no-index", "-o", "index_dir=c"],
    ] {
        sandbox.run(line).refused(2, "cannot both");
    }
}

#[test]
fn p6_arguments_are_escaped_in_messages() {
    let sandbox = Sandbox::new();
    for line in [
        &["inspect", "\x1b[2J\u{202e}.tar"][..],
        &["inspect", "a.tar", "--\x1b[2J\u{202e}"],
        &["unpack", "\x1b[2J\u{202e}.tar", "out"],
    ] {
        let run = sandbox.run(line);
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
        assert!(run.stderr.contains("\\u{202e}"), "{}", run.stderr);
        assert!(!run.stderr.contains(['\x1b', '\u{202e}']), "{}", run.stderr);
    }
}

#[test]
fn the_mount_helper_speaks_of_itself() {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(&["--help"])
        .arg0("/sbin/mount.modeloci")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Usage: mount.modeloci"), "{text}");
}
