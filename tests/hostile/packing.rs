//! k: packing a directory.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::forge::noise;
use crate::meanwhile::{meanwhile, race, rounds};
use crate::sandbox::{PATIENCE, Run, Sandbox, assert_tree, available, finish, needs_root};

pub(crate) const PACK: [&str; 8] = [
    "pack",
    "model",
    "--name",
    "m",
    "--version",
    "1",
    "-o",
    "m.tar",
];

pub(crate) fn pack(sandbox: &Sandbox, more: &[&str]) -> Run {
    sandbox.run_bounded(&[&PACK[..], more].concat())
}

/// Two files, some megabytes: long enough to interrupt.
pub(crate) fn model(sandbox: &Sandbox) -> Vec<(&'static str, Vec<u8>)> {
    let files = vec![
        ("a.bin", noise(21, 3 << 20)),
        ("sub/b.txt", b"text and text ".repeat(100_000)),
    ];
    sandbox.tree("model", &files);
    files
}

/// Refused, and nothing but the model is left.
#[track_caller]
fn refused(sandbox: &Sandbox, code: i32, words: &[&str]) {
    let before = sandbox.names();
    pack(sandbox, &[]).fails(code, words);
    assert_eq!(sandbox.names(), before);
}

fn mkfifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

pub(crate) fn spawn(sandbox: &Sandbox) -> Child {
    let mut command = sandbox.command(&PACK);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What happens to a file while it is packed is noticed: the archive holds one version of it, or
/// there is none.
#[test]
fn k1_a_file_that_changes_while_it_is_packed() {
    let sandbox = Sandbox::new();
    let versions = [noise(1, 4 << 20), noise(2, 4 << 20)];
    sandbox.tree(
        "model",
        &[("w.bin", versions[0].clone()), ("z", b"z".to_vec())],
    );
    let file = OpenOptions::new()
        .write(true)
        .open(sandbox.path("model/w.bin"));
    let file = file.unwrap();
    let mut n = 0;
    let change = || {
        n += 1;
        match n % 3 {
            0 => file.write_all_at(&versions[n / 3 % 2], 0).unwrap(),
            1 => file.set_len((4 << 20) + 1).unwrap(),
            _ => file.set_len((4 << 20) - 1).unwrap(),
        }
        thread::sleep(Duration::from_millis(3));
    };
    meanwhile([change], || {
        race(8, &["refused"], |_| {
            let run = pack(&sandbox, &[]).sober();
            if run.code == Some(0) {
                fs::remove_file(sandbox.path("m.tar")).unwrap();
                return "packed";
            }
            run.fails(1, &["model/w.bin", "while it was packed"]);
            assert_eq!(sandbox.names(), ["model"]);
            "refused"
        })
    });
}

#[test]
fn k2_a_file_that_vanishes() {
    let sandbox = Sandbox::new();
    let mut vanished = false;
    for delay in 0..30 {
        let _ = fs::remove_dir_all(sandbox.path("model"));
        let files: Vec<(String, Vec<u8>)> = (0..40)
            .map(|n| (format!("f{n:02}"), noise(n + 1, 40_000)))
            .collect();
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
        sandbox.tree("model", &files);
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(10 + delay * 3));
                fs::remove_file(sandbox.path("model/f39")).unwrap();
            });
            pack(&sandbox, &[]).sober()
        });
        if run.code == Some(0) {
            fs::remove_file(sandbox.path("m.tar")).unwrap();
            continue;
        }
        run.fails(1, &["model/f39", "vanished while it was packed"]);
        assert_eq!(sandbox.names(), ["model"]);
        vanished = true;
        break;
    }
    // Timing decides; a unit test forces it.
    let _ = vanished;
}

#[test]
fn k2_permission_denied() {
    let sandbox = Sandbox::new();
    sandbox.tree(
        "box/model",
        &[("a", b"a".to_vec()), ("closed", b"b".to_vec())],
    );
    sandbox.give_to_user("box");
    fs::set_permissions(
        sandbox.path("box/model/closed"),
        Permissions::from_mode(0o000),
    )
    .unwrap();
    let args = [
        "pack",
        "box/model",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "box/m.tar",
    ];
    let run = finish(sandbox.as_user(&args));
    run.fails(5, &["box/model/closed", "ermission denied"]);
    fs::set_permissions(
        sandbox.path("box/model/closed"),
        Permissions::from_mode(0o644),
    )
    .unwrap();
    let locked = sandbox.mkdir("box/model/dir");
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    let run = finish(sandbox.as_user(&args));
    fs::set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
    run.fails(5, &["box/model/dir", "ermission denied"]);
    assert_eq!(crate::sandbox::names(&sandbox.path("box")), ["model"]);
}

#[test]
fn k3_a_sparse_file_of_a_terabyte() {
    let sandbox = Sandbox::new();
    sandbox.mkdir("model");
    let file = File::create(sandbox.path("model/huge")).unwrap();
    let possible = file.set_len(1 << 40).is_ok();
    if !available("a file system with sparse files of a terabyte", possible) {
        return;
    }
    let mut command = sandbox.limited("-v 1048576", &PACK);
    command.stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    thread::sleep(Duration::from_millis(1500));
    let ended = child.try_wait().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(ended.is_none(), "ended early: {stderr}");
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 256 << 10, "{peak} kB of memory");
    assert!(!sandbox.path("m.tar").exists());
}

#[test]
fn k4_special_files() {
    for (what, word) in [("fifo", "FIFO"), ("socket", "socket"), ("device", "device")] {
        let sandbox = Sandbox::new();
        model(&sandbox);
        let path = sandbox.path("model/sub/special");
        let mut listener = None;
        match what {
            "fifo" => mkfifo(&path),
            "socket" => listener = Some(UnixListener::bind(&path).unwrap()),
            _ => {
                let null = rustix::fs::makedev(1, 3);
                let kind = rustix::fs::FileType::CharacterDevice;
                let mode = rustix::fs::Mode::from_raw_mode(0o666);
                let make = || rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, null);
                if !needs_root("make a device")
                    || !available("the right to make a device", make().is_ok())
                {
                    continue;
                }
            }
        }
        refused(&sandbox, 1, &["model/sub/special", word]);
        // A link to it is no way around.
        fs::remove_file(&path).unwrap();
        drop(listener);
        mkfifo(&sandbox.path("model/zz"));
        symlink("../zz", &path).unwrap();
        refused(&sandbox, 1, &["model/sub/special", "FIFO"]);
    }
}

#[test]
fn k5_symbolic_links() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    sandbox.write("outside", "secret");
    symlink("../a.bin", sandbox.path("model/sub/link")).unwrap();
    symlink("sub", sandbox.path("model/again")).unwrap();
    pack(&sandbox, &[]).ok();
    let mut expected = files.clone();
    expected.push(("again/b.txt", files[1].1.clone()));
    expected.push(("again/link", files[0].1.clone()));
    expected.push(("sub/link", files[0].1.clone()));
    sandbox.accepts(fs::read(sandbox.path("m.tar")).unwrap(), &expected);
    fs::remove_file(sandbox.path("m.tar")).unwrap();

    let absolute = sandbox.path("outside");
    let link = sandbox.path("model/bad");
    for (target, word) in [
        ("../outside", "out of the model directory"),
        (absolute.to_str().unwrap(), "out of the model directory"),
        ("/etc/passwd", "out of the model directory"),
        ("/proc/self/mem", "out of the model directory"),
        ("..", "out of the model directory"),
        ("nowhere", "leads nowhere"),
        ("a.bin/x", "leads nowhere"),
        ("bad", "circle"),
        (".", "directory that contains it"),
    ] {
        symlink(target, &link).unwrap();
        refused(&sandbox, 1, &["model/bad", word]);
        fs::remove_file(&link).unwrap();
    }
}

/// Links that double the number of paths with every level: 2^29 of them.
#[test]
fn k5_links_that_multiply() {
    let sandbox = Sandbox::new();
    for level in 0..30 {
        sandbox.mkdir(&format!("model/d{level}"));
        for name in ["a", "b"] {
            let target = format!("../d{}", level + 1);
            if level < 29 {
                symlink(target, sandbox.path(format!("model/d{level}/{name}"))).unwrap();
            }
        }
    }
    sandbox.write("model/d29/file", "x");
    refused(&sandbox, 1, &["model", "holds more than"]);
}

/// Someone swaps a file for a link to a secret while it is packed: the secret is never packed.
#[test]
fn k5_a_file_swapped_for_a_link_while_it_is_packed() {
    let sandbox = Sandbox::new();
    let secret = b"TOP SECRET ".repeat(100);
    sandbox.write("secret/file", &secret);
    for n in 0..30 {
        sandbox.write(&format!("model/d{n:02}/file"), noise(n + 1, 20_000));
    }
    // A directory and a file take turns with links to the secret.
    let (file, spare) = (sandbox.path("model/d15/file"), sandbox.path("spare"));
    let (dir, spare_dir) = (sandbox.path("model/d20"), sandbox.path("spare-dir"));
    let swap = || {
        for (at, spare, target) in [(&file, &spare, "secret/file"), (&dir, &spare_dir, "secret")] {
            fs::rename(at, spare).unwrap();
            symlink(sandbox.path(target), at).unwrap();
            thread::yield_now();
            fs::remove_file(at).unwrap();
            fs::rename(spare, at).unwrap();
        }
    };
    meanwhile([swap], || {
        for _ in 0..rounds(25) {
            let run = pack(&sandbox, &["--compression", "none"]).sober();
            if run.code == Some(0) {
                let archive = fs::read(sandbox.path("m.tar")).unwrap();
                assert!(!archive.windows(10).any(|w| w == &secret[..10]));
                fs::remove_file(sandbox.path("m.tar")).unwrap();
            } else {
                run.fails(1, &["model/d"]);
            }
        }
    });
}

#[test]
fn k6_hard_links_are_separate_paths() {
    let sandbox = Sandbox::new();
    let mut files = model(&sandbox);
    fs::hard_link(sandbox.path("model/a.bin"), sandbox.path("model/c.bin")).unwrap();
    files.push(("c.bin", files[0].1.clone()));
    pack(&sandbox, &[]).ok();
    sandbox.accepts(fs::read(sandbox.path("m.tar")).unwrap(), &files);
}

#[test]
fn k7_names_that_cannot_be_packed_are_all_listed() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    for name in [&b"not\xffutf8"[..], b"new\nline", b"esc\x1b[2J", b"ok"] {
        File::create(sandbox.path("model/sub").join(OsStr::from_bytes(name))).unwrap();
    }
    let words = [
        "3 names",
        "not\\xffutf8",
        "not UTF-8",
        "new\\u{a}line",
        "esc\\u{1b}[2J",
    ];
    refused(&sandbox, 1, &words);
}

#[test]
fn k7_directories_that_are_too_deep() {
    let sandbox = Sandbox::new();
    sandbox.write(&format!("model/{}/x", vec!["d"; 64].join("/")), "x");
    refused(&sandbox, 1, &["65 components deep", "limit is 64"]);
}

#[test]
fn k8_no_space_for_the_output() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let before = sandbox.names();
    // A megabyte: a file that may grow no further.
    let run = finish(sandbox.limited("-f 2048", &PACK));
    run.fails(5, &["m.tar", "too large"]);
    assert_eq!(sandbox.names(), before);
    // To a pipe that nobody reads to its end, and to a full device.
    let args = ["pack", "model", "--name", "m", "--version", "1", "-o", "-"];
    let mut command = sandbox.command(&args);
    command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
    Run::end_of(command.spawn().unwrap(), PATIENCE, "pack").fails(5, &["o space left"]);
    assert_eq!(sandbox.names(), before);
}

/// With one thread everything is done that is done with many, and comes out the same.
#[test]
fn r19_no_thread_can_be_started() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    pack(&sandbox, &[]).ok();
    sandbox.mkdir("box");
    sandbox.give_to_user("box");
    let run = |args: &[&str]| finish(sandbox.without_threads(args));
    // With a warning about threads that would decode.
    let unpacked = run(&["unpack", "m.tar", "box/out", "-j", "4"]).sober();
    assert_eq!(unpacked.code, Some(0), "{}", unpacked.stderr);
    assert_tree(&sandbox.path("box/out"), &files);
    for jobs in ["1", "40"] {
        run(&["inspect", "m.tar", "-j", jobs]).ok();
    }
    // Layers of another tool.
    let original = "tests/data/original/basic-pitch-1.0.0.tar";
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(original);
    fs::copy(original, sandbox.path("box/original.tar")).unwrap();
    sandbox.give_to_user("box/original.tar");
    run(&["inspect", "box/original.tar", "-j", "4"]).ok();
    // A file so large that it is otherwise decoded by a thread of its own, as far as readers get.
    let large = noise(7, 6 << 20);
    modeloci_test_support::write_archive(&sandbox.path("box/large.tar"), &[("large", &large)]);
    sandbox.give_to_user("box/large.tar");
    let read = run(&["cat", "box/large.tar", "large"]).ok();
    assert!(read.stdout == large);

    let mut args = PACK;
    args[7] = "box/m.tar";
    run(&args).ok();
    let usual = fs::read(sandbox.path("m.tar")).unwrap();
    assert!(fs::read(sandbox.path("box/m.tar")).unwrap() == usual);
    let add = |path: &str| ["add-layer", path, "model/a.bin", "--path", "new"].map(String::from);
    let alone = add("box/m.tar");
    run(&alone.each_ref().map(String::as_str)).ok();
    let together = add("m.tar");
    let args = together.each_ref().map(String::as_str);
    sandbox.run_bounded(&args).ok();
    let usual = fs::read(sandbox.path("m.tar")).unwrap();
    assert!(fs::read(sandbox.path("box/m.tar")).unwrap() == usual);
}

#[test]
fn k8_a_full_file_system() {
    // The limit on file sizes stands for it above.
    if !needs_root("mount a small file system") {
        return;
    }
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    let full = sandbox.mkdir("full");
    let mount = |command: &str, args: &[&str]| {
        Command::new(command)
            .args(args)
            .arg(&full)
            .status()
            .unwrap()
            .success()
    };
    let mounted = mount("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
    if !available("the right to mount a tmpfs", mounted) {
        return;
    }
    let args = [
        "pack",
        "model",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "full/m.tar",
    ];
    let packed = sandbox.run_bounded(&args);
    let after_pack = crate::sandbox::names(&full);
    // A partial unpack, too.
    pack(&sandbox, &[]).ok();
    let unpacked = sandbox.run_bounded(&["unpack", "m.tar", "full/out"]);
    let after_unpack = crate::sandbox::names(&full);
    // An archive that is there stays whole when a layer no longer fits.
    sandbox.tree("small", &[("a", files[0].1[..900_000].to_vec())]);
    let args = [
        "pack",
        "small",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "full/s.tar",
    ];
    sandbox.run(&args).ok();
    let before = fs::read(full.join("s.tar")).unwrap();
    let added = sandbox.run_bounded(&["add-layer", "full/s.tar", "model/a.bin"]);
    let after_add = (
        crate::sandbox::names(&full),
        fs::read(full.join("s.tar")).unwrap(),
    );
    assert!(mount("umount", &["-l"]));
    packed.fails(5, &["full/m.tar", "o space left"]);
    assert_eq!(after_pack, [""; 0]);
    unpacked.fails(5, &["full/out", "o space left"]);
    assert_eq!(after_unpack, [""; 0]);
    added.fails(5, &["s.tar", "o space left"]);
    assert!(after_add == (vec!["s.tar".to_string()], before));
}

#[test]
fn k10_the_output_inside_the_model() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    sandbox.write("model/.modeloci-left.tmp", "of a run that was killed");
    let args = [
        "pack",
        "model",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "model/m.tar",
    ];
    sandbox.run_bounded(&args).ok();
    let first = fs::read(sandbox.path("model/m.tar")).unwrap();
    sandbox
        .run_bounded(&args)
        .fails(1, &["model/m.tar", "--force"]);
    assert!(fs::read(sandbox.path("model/m.tar")).unwrap() == first);
    sandbox
        .run_bounded(&[&args[..], &["--force"]].concat())
        .ok();
    assert!(fs::read(sandbox.path("model/m.tar")).unwrap() == first);
    sandbox.accepts(first, &files);
}

#[test]
fn k10_the_output_exists() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    sandbox.write("m.tar", "precious");
    refused(&sandbox, 1, &["m.tar", "exists", "--force"]);
    assert_eq!(fs::read(sandbox.path("m.tar")).unwrap(), b"precious");
    // Never through a link: the link is replaced, not what it leads to.
    fs::rename(sandbox.path("m.tar"), sandbox.path("precious")).unwrap();
    symlink("precious", sandbox.path("m.tar")).unwrap();
    refused(&sandbox, 1, &["m.tar", "exists"]);
    pack(&sandbox, &["--force"]).ok();
    assert_eq!(fs::read(sandbox.path("precious")).unwrap(), b"precious");
    assert!(sandbox.path("m.tar").symlink_metadata().unwrap().is_file());
    fs::remove_file(sandbox.path("m.tar")).unwrap();
    symlink("dangling", sandbox.path("m.tar")).unwrap();
    refused(&sandbox, 1, &["m.tar", "exists"]);
    fs::remove_file(sandbox.path("m.tar")).unwrap();
    for force in [&[][..], &["--force"]] {
        sandbox.mkdir("m.tar");
        pack(&sandbox, force).fails(1, &["m.tar"]);
    }
    fs::remove_dir(sandbox.path("m.tar")).unwrap();
    mkfifo(&sandbox.path("m.tar"));
    pack(&sandbox, &["--force"]).fails(1, &["m.tar", "not a regular file"]);
}

/// Several at once: one of them wins, whole, and none leaves anything behind.
#[test]
fn k10_concurrent_runs_for_one_output() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    let runs: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| pack(&sandbox, &[])))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut done = 0;
    for run in runs {
        match run.code {
            Some(0) => done += 1,
            _ => drop(run.fails(1, &["m.tar", "exists"])),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(sandbox.names(), ["m.tar", "model"]);
    sandbox.accepts(fs::read(sandbox.path("m.tar")).unwrap(), &files);
}

#[test]
fn k11_no_files_and_empty_directories() {
    let sandbox = Sandbox::new();
    sandbox.mkdir("model/empty/nested");
    let run = pack(&sandbox, &[]).ok();
    assert!(run.stderr.contains("no files"), "{}", run.stderr);
    let json = sandbox.run(&["inspect", "m.tar", "--json"]).ok().json();
    assert_eq!(json["files"], 0);
    sandbox.run_bounded(&["unpack", "m.tar", "out"]).ok();
    assert_tree(&sandbox.path("out"), &[]);
    assert!(sandbox.path("out/empty/nested").is_dir());
    let mounted = crate::mounted::Mounted::new(&sandbox, "m.tar");
    assert_eq!(crate::sandbox::names(&mounted.path()), ["empty"]);
}

#[test]
fn k12_bad_metadata_names_and_versions() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let before = sandbox.names();
    for bad in [
        "",
        "{",
        "[]",
        "1",
        "{\"a\":1,\"a\":2}",
        "{} x",
        "\u{feff}{}",
        "{'a':1}",
    ] {
        let args = [&PACK[..], &["--metadata", bad]].concat();
        sandbox.run_bounded(&args).fails(2, &["--metadata"]);
    }
    let deep = "[".repeat(100_000);
    let args = [&PACK[..], &["--metadata", &deep]].concat();
    sandbox.run_bounded(&args).fails(2, &["--metadata", "deep"]);
    for option in ["--name", "--version"] {
        for bad in [
            "",
            "a/..",
            "a/",
            "../x",
            "/x",
            ".",
            "..",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{202e}b",
            " a",
            "-",
        ] {
            let other = if option == "--name" {
                "--version"
            } else {
                "--name"
            };
            let given = format!("{option}={bad}");
            let args = ["pack", "model", &given, other, "1"];
            sandbox
                .run_bounded(&args)
                .fails(2, &[option.trim_start_matches('-')]);
        }
    }
    assert_eq!(sandbox.names(), before);
}

#[test]
fn k0_layers_that_cannot_be_added() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    pack(&sandbox, &[]).ok();
    let archive = fs::read(sandbox.path("m.tar")).unwrap();
    sandbox.write("new", "new");
    sandbox.mkdir("dir");
    mkfifo(&sandbox.path("fifo"));
    symlink("fifo", sandbox.path("link")).unwrap();
    for (file, more, code, words) in [
        ("fifo", &[][..], 1, ["fifo", "regular file"]),
        ("link", &[], 1, ["link", "regular file"]),
        ("dir", &[], 1, ["dir", "regular file"]),
        ("/dev/zero", &[], 1, ["/dev/zero", "regular file"]),
        ("absent", &[], 5, ["absent", "o such file"]),
        ("new", &["--path", "a.bin"], 1, ["a.bin", "already"]),
        ("new", &["--path", "a.bin/x"], 1, ["a.bin/x", "beside"]),
        ("new", &["--path", "sub"], 1, ["sub", "beside"]),
        ("new", &["--path", "../x"], 2, ["../x", "component"]),
        ("new", &["--path", "/x"], 2, ["/x", "absolute"]),
        ("new", &["--path", "a\nb"], 2, ["a\\u{a}b", "control"]),
    ] {
        let args = [&["add-layer", "m.tar", file][..], more].concat();
        sandbox.run_bounded(&args).fails(code, &words);
        assert!(fs::read(sandbox.path("m.tar")).unwrap() == archive);
    }
    // To what is no archive, or a damaged one.
    sandbox.write("bad.tar", &archive[..5000]);
    sandbox
        .run_bounded(&["add-layer", "bad.tar", "new"])
        .fails(3, &["bad.tar"]);
    assert!(fs::read(sandbox.path("bad.tar")).unwrap() == archive[..5000]);
    let names = ["bad.tar", "dir", "fifo", "link", "m.tar", "model", "new"];
    assert_eq!(sandbox.names(), names);
}

#[test]
fn k0_what_is_no_model_directory() {
    let sandbox = Sandbox::new();
    refused(&sandbox, 2, &["model", "does not exist"]);
    mkfifo(&sandbox.path("model"));
    refused(&sandbox, 2, &["model", "not a directory"]);
    fs::remove_file(sandbox.path("model")).unwrap();
    let mut file = File::create(sandbox.path("x")).unwrap();
    file.write_all(b"x").unwrap();
    let args = [
        "pack",
        ".",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "absent/m.tar",
    ];
    sandbox
        .run_bounded(&args)
        .fails(2, &["absent", "does not exist"]);
    let args = [
        "pack",
        ".",
        "--name",
        "m",
        "--version",
        "1",
        "-o",
        "x/m.tar",
    ];
    sandbox.run_bounded(&args).fails(2, &["x", "not"]);
}
