//! `modeloci inspect`

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use super::harness::{Sandbox, noise};

/// Many layers at a time, or many threads for one layer: never more than were asked for.
#[test]
fn r19_jobs_bound_the_threads_of_all_layers() {
    let sandbox = Sandbox::new();
    for (archive, files) in [("many.tar", 16), ("one.tar", 1)] {
        let model = format!("model-{archive}");
        for n in 0..files {
            let size = (96 << 20) / files;
            sandbox.write(&format!("{model}/{n}.bin"), noise(1, size + n));
        }
        let args = [
            "pack",
            &model,
            "--name",
            "m",
            "--version",
            "1",
            "-o",
            archive,
        ];
        sandbox.run(&args).quiet();
        let mut child = sandbox.command(&["inspect", archive, "-j", "5"]);
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        let mut most = 0;
        let code = loop {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.unwrap_or_default();
            let threads = status
                .lines()
                .find_map(|line| line.strip_prefix("Threads:"));
            most = most.max(threads.map_or(0, |threads| threads.trim().parse().unwrap()));
            if let Some(code) = child.try_wait().unwrap() {
                break code;
            }
        };
        assert!(code.success());
        assert!((2..=5).contains(&most), "{archive}: {most}");
    }
}

#[test]
fn prints_what_is_in_the_archive() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.run(&[
        "pack",
        "model",
        "--name",
        "llama",
        "--version",
        "1.0.0",
        "--metadata",
        "{\"license\":\"mit\"}",
    ]);
    let run = sandbox.run(&["inspect", "llama-1.0.0.tar"]).quiet();
    let lines: Vec<&str> = run.text().lines().collect();
    let layers = [
        ("config.json                                 0.0 KB", 6),
        ("nested/tokenizer.json                       9.8 KB", 7),
        ("weights.bin                              3072.0 KB", 8),
    ];
    let mut digests = Vec::new();
    for (start, number) in layers {
        let digest = lines[number].strip_prefix(&format!("  {start}  ")).unwrap();
        assert!(digest.starts_with("sha256:"), "{digest}");
        digests.push(format!("  OK  {digest}"));
    }
    assert_eq!(lines[11..14], digests);
    assert_eq!(lines[14..16], ["All layers verified.", ""]);
    assert_eq!(lines[16], "Metadata:  {\"license\":\"mit\"}");
    assert!(lines[17].starts_with("Digest:    sha256:"));
    assert_eq!(lines.len(), 18);

    let list = sandbox
        .run(&["inspect", "--archive", "llama-1.0.0.tar", "--no-verify"])
        .quiet();
    let list: Vec<&str> = list.text().lines().collect();
    assert_eq!(list[..9], lines[..9]);
    assert_eq!(list[9..], lines[15..]);
}

#[test]
fn p5_wide_names_and_marks_keep_the_columns() {
    let sandbox = Sandbox::new();
    for name in ["a", "\u{6a21}\u{578b}", "e\u{301}"] {
        sandbox.write(&format!("model/{name}"), "");
    }
    sandbox.pack();
    let run = sandbox.run(&["inspect", "m.tar", "--no-verify"]).quiet();
    // Columns of a terminal: two for each ideograph, none for the accent.
    let column = |name: &str, wide: usize| {
        let line = run
            .text()
            .lines()
            .find(|line| line.starts_with(&format!("  {name} ")));
        let line: Vec<char> = line.unwrap().chars().collect();
        line.windows(2).position(|pair| pair == ['K', 'B']).unwrap() + wide
    };
    let expected = column("a", 0);
    assert_eq!(column("\u{6a21}\u{578b}", 2), expected);
    assert_eq!(column("e\u{301}", 0) - 1, expected);
}

#[test]
fn json_has_everything() {
    let sandbox = Sandbox::new();
    let files = sandbox.model();
    let digest = sandbox.pack();
    let json = sandbox.run(&["inspect", "m.tar", "--json"]).quiet().json();
    assert_eq!(json["manifest_digest"], digest.as_str());
    assert_eq!(json["model"]["model_name"], "m");
    assert_eq!(json["verified"], true);
    for (i, (path, bytes)) in files.iter().enumerate() {
        let layer = &json["layers"][i];
        assert_eq!(layer["path"], *path);
        assert_eq!(layer["size"], bytes.len());
        assert_eq!(layer["digest"], modeloci::Digest::sha256(bytes).to_string());
        assert_eq!(layer["compression"], "gzip");
        assert_eq!(layer["seekable"], true);
        assert_eq!(layer["verified"], true);
        assert!(layer["error"].is_null());
        assert!(layer["layer"]["annotations"].is_object());
        assert!(layer["ratio"].is_number());
    }
    let json = sandbox
        .run(&["inspect", "m.tar", "--json", "--no-verify"])
        .quiet()
        .json();
    assert!(json["verified"].is_null());
    assert!(json["layers"][0]["verified"].is_null());
}

#[test]
fn d2_another_manifest_than_the_pinned_exits_4() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let digest = sandbox.pack();
    sandbox
        .run(&["inspect", "m.tar", "--digest", &digest])
        .quiet();
    let other = format!("sha256:{}", "0".repeat(64));
    for line in [
        &["inspect", "m.tar", "--digest", &other][..],
        &["unpack", "m.tar", "out", "--digest", &other],
    ] {
        sandbox.run(line).refused(4, &digest);
    }
    assert_eq!(sandbox.names(), ["m.tar", "model"]);
}

#[test]
fn d3_a_flipped_bit_fails_its_layer_and_no_other() {
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

    let run = sandbox.run(&["inspect", "m.tar"]);
    assert_eq!(run.code, Some(1));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", run.stderr);
    assert!(lines[0].starts_with("error: "), "{}", run.stderr);
    assert!(lines[0].contains("weights.bin"), "{}", run.stderr);
    assert_eq!(lines[1], "error: 1 of 3 layers failed verification");
    assert!(!run.text().contains("verified"));

    let run = sandbox.run(&["inspect", "m.tar", "--json"]);
    assert_eq!(run.code, Some(1));
    let json = run.json();
    assert_eq!(json["verified"], false);
    assert_eq!(json["layers"][0]["verified"], true);
    assert_eq!(json["layers"][2]["verified"], false);
    assert!(json["layers"][2]["error"].is_string());
    sandbox.run(&["inspect", "m.tar", "--no-verify"]).quiet();

    // Also where nobody reads the listing to its end, as behind `| head` or `| grep -q`.
    for line in [&["inspect", "m.tar"][..], &["inspect", "m.tar", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sandbox.command(line);
        let output = command.stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("weights.bin"), "{text}");
    }
}

#[test]
fn t11_what_is_no_archive_exits_3_and_what_is_absent_5() {
    let sandbox = Sandbox::new();
    sandbox.write("text.tar", "hello");
    sandbox.write("empty.tar", "");
    fs::create_dir(sandbox.path("dir")).unwrap();
    for name in ["text.tar", "empty.tar", "dir"] {
        sandbox.run(&["inspect", name]).refused(3, name);
        sandbox.run(&["unpack", name, "out"]).refused(3, name);
    }
    sandbox
        .run(&["inspect", "absent.tar"])
        .refused(5, "absent.tar");
}

#[test]
fn an_interrupt_inside_a_layer_says_so() {
    let sandbox = Sandbox::new();
    // One layer, which takes long enough.
    let file = fs::File::create(sandbox.write("model/weights.bin", "")).unwrap();
    file.set_len(1 << 30).unwrap();
    let line = "pack model --name m --version 1.0 -o m.tar --compression none";
    sandbox.run(&line.split(' ').collect::<Vec<_>>()).quiet();
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let child = sandbox
            .command(&["inspect", "m.tar"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It catches signals before it opens the archive.
        let stat = format!("/proc/{}/status", child.id());
        let caught = || {
            let status = fs::read_to_string(&stat).unwrap();
            let mask = status.split("SigCgt:").nth(1).unwrap();
            let mask = u64::from_str_radix(mask.lines().next().unwrap().trim(), 16).unwrap();
            mask & 1 << (number - 1) != 0
        };
        while !caught() {
            std::thread::yield_now();
        }
        let kill = ["-s", signal, &child.id().to_string()];
        Command::new("kill").args(kill).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text, "error: m.tar: interrupted\n");
        assert!(output.stdout.is_empty());
    }
}

/// Runs a command with a terminal of so many columns; `script` belongs to every system.
fn on_terminal(sandbox: &Sandbox, columns: u32, args: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_modeloci");
    let output = Command::new("script")
        .args([
            "-qec",
            &format!("stty rows 24 cols {columns}; {binary} {args}"),
        ])
        .arg("/dev/null")
        .current_dir(sandbox.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn a_listing_keeps_within_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.model();
    let long = format!("{}/{}", "d".repeat(50), "f".repeat(49));
    for name in ["\u{6a21}\u{578b}", &long] {
        sandbox.write(&format!("model/{name}"), "");
    }
    let digest = sandbox.pack();
    let width = |line: &str| -> usize {
        let wide = |c: char| if c > '\u{2000}' { 2 } else { 1 };
        line.chars().map(wide).sum()
    };
    for columns in [40, 100] {
        let text = on_terminal(&sandbox, columns, "inspect m.tar");
        assert!(text.contains("\n  \u{6a21}\u{578b}"), "{text}");
        assert!(text.contains("All layers verified."), "{text}");
        for line in text.lines().filter(|line| !line.contains('\u{1b}')) {
            let whole = line.contains(&digest) || line.trim() == long;
            assert!(
                whole || width(line) <= columns as usize,
                "{columns}: {line}"
            );
        }
    }
    // The bar counts within a layer, in the units of everything else.
    let text = on_terminal(&sandbox, 100, "inspect m.tar");
    assert!(text.contains("MiB"), "{text}");
}
