//! `modeloci unpack`

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use modeloci_test_support::meanwhile::rounds;

use super::harness::{Sandbox, names, noise};

#[test]
fn restores_the_files_and_prints_the_config() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    fs::set_permissions(
        sandbox.path("model/config.json"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    sandbox.pack();
    let run = sandbox.run(&["unpack", "m.tar", "out"]).quiet();
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(lines[0], format!("Unpacked to: {}", sandbox.real("out")));
    assert_eq!(lines[1], "Model    : m");
    assert_eq!(lines[5], "Metadata:  {}");
    assert_eq!(lines[7], "Files:     3 (3.01 MiB)");
    for (name, bytes) in &files {
        assert!(
            fs::read(sandbox.path("out").join(name)).unwrap() == *bytes,
            "{name}"
        );
    }
    assert_eq!(
        names(&sandbox.path("out")),
        ["config.json", "nested", "weights.bin"]
    );
    assert_eq!(sandbox.names(), ["m.tar", "model", "out"]);
    let mode = |name: &str| fs::metadata(sandbox.path(name)).unwrap().mode();
    assert_ne!(mode("out/config.json") & 0o100, 0);
    assert_eq!(mode("out/weights.bin") & 0o7111, 0);

    let args = [
        "unpack",
        "--archive",
        "m.tar",
        "--output",
        "two",
        "--json",
        "--jobs",
        "1",
    ];
    let json = sandbox.run(&args).quiet().json();
    assert_eq!(json["files"], 3);
    assert_eq!(json["model"]["version"], "1.0");
    assert!(fs::read(sandbox.path("two/weights.bin")).unwrap() == files[2].1);
}

#[test]
fn u0_missing_parents_are_created_and_go_when_it_fails() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    sandbox.pack();
    let run = sandbox.run(&["unpack", "m.tar", "new/deep/out"]).quiet();
    let expected = format!("Unpacked to: {}\n", sandbox.real("new/deep/out"));
    assert!(run.text().starts_with(&expected), "{}", run.text());
    assert_eq!(names(&sandbox.path("new/deep")), ["out"]);
    for (name, bytes) in &files {
        let path = sandbox.path("new/deep/out").join(name);
        assert!(fs::read(path).unwrap() == *bytes, "{name}");
    }

    let mut archive = fs::read(sandbox.path("m.tar")).unwrap();
    let needle = &noise(1, 2_000_064)[2_000_000..];
    let at = archive
        .windows(64)
        .position(|window| window == needle)
        .unwrap();
    archive[at] ^= 1;
    sandbox.write("bad.tar", &archive);
    for (output, force) in [("a/b/out", &[][..]), ("new/b/c/out", &["--force"])] {
        let line = [&["unpack", "bad.tar", output][..], force].concat();
        sandbox.run(&line).refused(1, "weights.bin");
    }
    assert_eq!(sandbox.names(), ["bad.tar", "m.tar", "model", "new"]);
    assert_eq!(
        names(&sandbox.path("new")),
        ["deep"],
        "what was there stays"
    );
}

#[test]
fn include_restores_what_matches() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    sandbox
        .run(&["unpack", "m.tar", "out", "--include", "*.json"])
        .quiet();
    assert_eq!(names(&sandbox.path("out")), ["config.json", "nested"]);
    sandbox
        .run(&[
            "unpack",
            "m.tar",
            "two",
            "--include",
            "w*",
            "--include",
            "nested/*",
        ])
        .quiet();
    assert_eq!(names(&sandbox.path("two")), ["nested", "weights.bin"]);
    sandbox
        .run(&["unpack", "m.tar", "dir", "--include", "nested"])
        .quiet();
    assert_eq!(names(&sandbox.path("dir")), ["nested"]);
    assert_eq!(names(&sandbox.path("dir/nested")), ["tokenizer.json"]);
    sandbox
        .run(&["unpack", "m.tar", "no", "--include", "*.gguf"])
        .refused(1, "*.gguf");
    sandbox
        .run(&["unpack", "m.tar", "no", "--include", "[a"])
        .refused(2, "[a");
    assert!(!sandbox.path("no").exists());
}

#[test]
fn u0_a_directory_cannot_go_to_stdout() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    for line in [
        &["unpack", "m.tar", "-o", "-"][..],
        &["unpack", "m.tar", "-"],
        &["unpack", "absent.tar", "-o", "-", "--force"],
    ] {
        let run = sandbox.run(line).refused(2, "--output - ");
        assert!(run.stderr.contains("\nhint: ./-"), "{}", run.stderr);
    }
    sandbox.run(&["unpack", "m.tar", "./-"]).quiet();
    assert_eq!(sandbox.names(), ["-", "m.tar", "model"]);
}

#[test]
fn a_registrys_reference_is_told_from_a_path() {
    let sandbox = Sandbox::new();
    // Nobody listens there.
    for reference in ["localhost:1/llama", "oci://127.0.0.1:1/org/llama:1.0"] {
        for line in [
            &["inspect", reference][..],
            &["unpack", reference, "out"],
            &["mount", reference, "out"],
        ] {
            fs::create_dir_all(sandbox.path("out")).unwrap();
            let run = sandbox.run(line).refused(5, "onnection refused");
            assert!(!run.stderr.contains("hint"), "{}", run.stderr);
        }
    }
    for path in [
        "./ghcr.io/a:1",
        "ghcr.io/a.tar",
        "/ghcr.io/a:1",
        "models/a:1",
        "a.b",
    ] {
        let run = sandbox.run(&["inspect", path]).refused(5, path);
        assert!(!run.stderr.contains("hint"), "{}", run.stderr);
    }
}

#[test]
fn u3_an_existing_output_needs_force_and_is_replaced_whole() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    sandbox.write("out/old", "old");
    let run = sandbox
        .run(&["unpack", "m.tar", "out"])
        .refused(1, "out: exists already");
    assert!(run.stderr.contains("\nhint: --force"), "{}", run.stderr);
    assert_eq!(names(&sandbox.path("out")), ["old"]);
    sandbox.run(&["unpack", "m.tar", "out", "--force"]).quiet();
    assert_eq!(
        names(&sandbox.path("out")),
        ["config.json", "nested", "weights.bin"]
    );

    sandbox.write("file", "precious");
    symlink("model", sandbox.path("link")).unwrap();
    for name in ["file", "link"] {
        sandbox
            .run(&["unpack", "m.tar", name, "--force"])
            .refused(1, "no directory");
    }
    assert_eq!(sandbox.names(), ["file", "link", "m.tar", "model", "out"]);
}

#[test]
fn u2_a_damaged_layer_leaves_nothing_and_the_old_output_whole() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    let mut archive = fs::read(sandbox.path("m.tar")).unwrap();
    let needle = &noise(1, 2_000_064)[2_000_000..];
    let at = archive
        .windows(64)
        .position(|window| window == needle)
        .unwrap();
    archive[at] ^= 1;
    sandbox.write("m.tar", &archive);
    sandbox.write("old/file", "old");
    sandbox
        .run(&["unpack", "m.tar", "out"])
        .refused(1, "weights.bin");
    sandbox
        .run(&["unpack", "m.tar", "old", "--force"])
        .refused(1, "weights.bin");
    assert_eq!(sandbox.names(), ["m.tar", "model", "old"]);
    assert_eq!(fs::read(sandbox.path("old/file")).unwrap(), b"old");
}

/// Packs a file that takes long enough to unpack to be interrupted.
fn pack_large(sandbox: &Sandbox) {
    let file = fs::File::create(sandbox.write("model/weights.bin", "")).unwrap();
    file.set_len(256 << 20).unwrap();
    let line = "pack model --name m --version 1 -o m.tar --compression none";
    sandbox.run(&line.split(' ').collect::<Vec<_>>()).quiet();
}

#[test]
fn u2_an_interrupt_leaves_nothing() {
    let sandbox = Sandbox::new();
    pack_large(&sandbox);
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let mut child = sandbox
            .command(&["unpack", "m.tar", "out"])
            .spawn()
            .unwrap();
        let started = || sandbox.names().iter().any(|name| name.ends_with(".tmp"));
        while !started() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let kill = ["-s", signal, &child.id().to_string()];
        Command::new("kill").args(kill).status().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number));
        assert_eq!(sandbox.names(), ["m.tar", "model"]);
    }
}

#[test]
fn u2_a_full_disk_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.pack();
    // A limit on file sizes fails a write as a full disk does, without needing one.
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" unpack m.tar out";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_modeloci")])
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(
        stderr.starts_with("error: cannot write out/weights.bin: "),
        "{stderr}"
    );
    assert_eq!(sandbox.names(), ["m.tar", "model"]);
}

#[test]
fn u2_a_kill_leaves_only_a_temporary_directory() {
    let sandbox = Sandbox::new();
    pack_large(&sandbox);
    let mut child = sandbox
        .command(&["unpack", "m.tar", "out"])
        .spawn()
        .unwrap();
    let started = || sandbox.names().iter().any(|name| name.ends_with(".tmp"));
    while !started() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let names = sandbox.names();
    assert!(
        names[0].starts_with(".modeloci-") && names[0].ends_with(".tmp"),
        "{names:?}"
    );
    assert_eq!(names[1..], ["m.tar", "model"]);
}

#[test]
fn u1_directories_swapped_for_links_meanwhile_lead_nowhere() {
    let sandbox = Sandbox::new();
    for i in 0..200 {
        sandbox.write(&format!("model/d{}/f{i}", i % 10), noise(1, 100));
    }
    sandbox.pack();
    let outside = sandbox.path("outside");
    fs::create_dir(&outside).unwrap();
    for round in 0..rounds(10) {
        let mut child = sandbox
            .command(&["unpack", "m.tar", "out"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Swap every directory for a link to the outside and back, as fast as possible.
        while child.try_wait().unwrap().is_none() {
            for name in sandbox.names().iter().filter(|name| name.ends_with(".tmp")) {
                let dir = sandbox.path(name).join(format!("tree/d{}", round % 10));
                let aside = sandbox.path("aside");
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(&outside, &dir);
                    std::thread::yield_now();
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                }
            }
        }
        assert_eq!(names(&outside), [""; 0]);
        for name in ["out", "aside"] {
            let _ = fs::remove_dir_all(sandbox.path(name));
        }
        for name in sandbox.names().iter().filter(|name| name.ends_with(".tmp")) {
            fs::remove_dir_all(sandbox.path(name)).unwrap();
        }
    }
}
