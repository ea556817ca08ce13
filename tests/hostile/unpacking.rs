//! u: unpacking an archive.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::forge::{Layout, Random, noise, sample_files};
use crate::meanwhile::{meanwhile, race};
use crate::sandbox::{Sandbox, assert_tree, available, names, needs_root};

const UNPACK: [&str; 3] = ["unpack", "m.tar", "out"];

/// A model of many directories, so that there is time to meddle.
fn model() -> Vec<(String, Vec<u8>)> {
    (0..40)
        .map(|n| (format!("d{n:02}/sub/file"), noise(n + 1, 20_000)))
        .collect()
}

fn archive(sandbox: &Sandbox) -> Vec<(String, Vec<u8>)> {
    let files = model();
    let layout = Layout::of(files.iter().map(|(n, b)| (n.as_str(), &b[..])));
    sandbox.write("m.tar", layout.to_bytes());
    files
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect()
}

#[test]
fn u1_links_swapped_in_while_it_runs_lead_nowhere() {
    let sandbox = Sandbox::new();
    let files = archive(&sandbox);
    let outside = sandbox.mkdir("outside");
    let swapped = AtomicUsize::new(0);
    // Whatever directory appears is replaced by a link to a place outside.
    let swap = || {
        for name in names(sandbox.root()) {
            if !name.starts_with(".modeloci-") {
                continue;
            }
            let staging = sandbox.path(&name);
            let below = fs::read_dir(staging.join("tree"));
            let beside = fs::read_dir(&staging);
            for entry in below.into_iter().chain(beside).flatten().flatten() {
                let path = entry.path();
                if fs::rename(&path, sandbox.path("moved")).is_ok() {
                    let _ = symlink(&outside, &path);
                    swapped.fetch_add(1, Ordering::Relaxed);
                    let _ = fs::remove_dir_all(sandbox.path("moved"));
                }
            }
        }
    };
    meanwhile([swap], || {
        race(10, &["swapped"], |_| {
            let before = swapped.load(Ordering::Relaxed);
            let run = sandbox.run_bounded(&UNPACK).sober();
            assert_eq!(names(&outside), [""; 0], "written outside");
            if run.code == Some(0) {
                // Meddled with too late, or after the end: then it holds no link to the outside
                // that we did not put there, and nothing else can be said about it.
                let _ = fs::remove_dir_all(sandbox.path("out"));
            } else {
                assert!(matches!(run.code, Some(1 | 5)), "{run:?}");
                run.one_error(&["out"]);
                assert!(!sandbox.path("out").exists());
            }
            match swapped.load(Ordering::Relaxed) == before {
                true => "left alone",
                false => "swapped",
            }
        })
    });
    for name in names(sandbox.root()) {
        if name.starts_with(".modeloci-") {
            fs::remove_dir_all(sandbox.path(name)).unwrap();
        }
    }
    let _ = fs::remove_dir_all(sandbox.path("moved"));
    sandbox.run_bounded(&UNPACK).ok();
    assert_tree(&sandbox.path("out"), &borrowed(&files));
}

#[test]
fn u1_links_planted_at_the_output() {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    let outside = sandbox.mkdir("outside");
    symlink("outside", sandbox.path("out")).unwrap();
    for force in [&[][..], &["--force"]] {
        let args = [&UNPACK[..], force].concat();
        sandbox.run_bounded(&args).fails(1, &["out", "exists"]);
        assert_eq!(names(&outside), [""; 0]);
    }
    assert_eq!(sandbox.names(), ["m.tar", "out", "outside"]);
    fs::remove_file(sandbox.path("out")).unwrap();
    symlink("dangling", sandbox.path("out")).unwrap();
    sandbox.run_bounded(&UNPACK).fails(1, &["out", "exists"]);
    fs::remove_file(sandbox.path("out")).unwrap();
    // Links inside a tree that is replaced: what they lead to is not touched.
    sandbox.write("outside/precious", "precious");
    sandbox.mkdir("out");
    symlink("../outside", sandbox.path("out/dir")).unwrap();
    symlink("../outside/precious", sandbox.path("out/a.bin")).unwrap();
    sandbox
        .run_bounded(&["unpack", "m.tar", "out", "--force"])
        .ok();
    assert_tree(&sandbox.path("out"), &sample_files());
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    assert_eq!(sandbox.names(), ["m.tar", "out", "outside"]);
}

#[test]
fn u2_killed_at_any_moment() {
    let sandbox = Sandbox::new();
    let files = archive(&sandbox);
    let files = borrowed(&files);
    let start = Instant::now();
    sandbox.run(&UNPACK).ok();
    let whole = start.elapsed();
    let mut random = Random(2);
    let mut killed = 0;
    for force in [false, true] {
        sandbox.run(&["unpack", "m.tar", "out", "--force"]).ok();
        for _ in 0..10 {
            if !force {
                let _ = fs::remove_dir_all(sandbox.path("out"));
            }
            let mut command = sandbox.command(&UNPACK);
            if force {
                command.arg("--force");
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
            // Absent, or complete.
            if force || sandbox.path("out").exists() {
                assert_tree(&sandbox.path("out"), &files);
            }
            for name in names(sandbox.root()) {
                let known = name == "m.tar" || name == "out";
                assert!(known || name.starts_with(".modeloci-"), "{name}");
            }
        }
    }
    assert!(killed > 0);
    sandbox
        .run_bounded(&["unpack", "m.tar", "out", "--force"])
        .ok();
    assert_tree(&sandbox.path("out"), &files);
}

#[test]
fn u2_interrupted() {
    let sandbox = Sandbox::new();
    // Much to decode and little to store.
    let zeros = vec![0; 60 << 20];
    let layout = Layout::of((0..3).map(|n| (["a", "b", "c"][n], &zeros[..])));
    sandbox.write("m.tar", layout.to_bytes());
    let mut child = sandbox
        .command(&UNPACK)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let start = Instant::now();
    let done = child.wait().unwrap().success();
    assert!(start.elapsed() < Duration::from_secs(10));
    let expected: &[&str] = if done { &["m.tar", "out"] } else { &["m.tar"] };
    assert_eq!(sandbox.names(), expected);
}

#[test]
fn u2_no_space() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "m.tar",
        Layout::of([("big", &noise(3, 2 << 20)[..])]).to_bytes(),
    );
    // A megabyte: a file that may grow no further.
    let run = crate::sandbox::finish(sandbox.limited("-f 2048", &UNPACK));
    run.fails(5, &["out/big", "too large"]);
    assert_eq!(sandbox.names(), ["m.tar"]);
}

#[test]
fn u3_the_output_exists() {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    sandbox.write("out/old", "old");
    sandbox.run_bounded(&UNPACK).fails(1, &["out", "exists"]);
    assert_tree(&sandbox.path("out"), &[("old", b"old".to_vec())]);
    // Never a mixture of old and new.
    let forced = ["unpack", "m.tar", "out", "--force"];
    sandbox.run_bounded(&forced).ok();
    assert_tree(&sandbox.path("out"), &sample_files());
    // An old tree is kept when the new one cannot be had.
    let mut bad = Layout::sample();
    let name = bad.layer_name(0);
    bad.damage(&name, |bytes| bytes[2000] ^= 1);
    sandbox.write("m.tar", bad.to_bytes());
    sandbox.run_bounded(&forced).fails(1, &["a.bin"]);
    assert_tree(&sandbox.path("out"), &sample_files());
    sandbox.write("file", "file");
    for force in [&[][..], &["--force"]] {
        let args = [&["unpack", "m.tar", "file"][..], force].concat();
        sandbox.run_bounded(&args).fails(1, &["file", "exists"]);
    }
    assert_eq!(sandbox.names(), ["file", "m.tar", "out"]);
}

/// More than paths can say: what is replaced may be anyone's.
fn deep_tree(dir: &std::path::Path, levels: usize) {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(CWD, dir, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, "deeper", Mode::from_raw_mode(0o755)).unwrap();
        rustix::fs::mkdirat(&dir, "beside", Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, "deeper", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn u3_a_tree_of_a_thousand_levels_is_replaced() {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    for limits in ["-n 1024", "-n 24"] {
        deep_tree(&sandbox.mkdir("out"), 1_000);
        let args = ["unpack", "m.tar", "out", "--force"];
        let run = crate::sandbox::finish(sandbox.limited(limits, &args));
        assert_eq!(run.ok().stderr, "", "nothing is left");
        assert_tree(&sandbox.path("out"), &sample_files());
        assert_eq!(sandbox.names(), ["m.tar", "out"]);
    }
}

/// Whether the secret is anywhere below the directory.
fn holds_secret(dir: &std::path::Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => holds_secret(&entry.path()),
            _ => entry.file_name() == "secret",
        })
    })
}

/// Whoever may rename in the directory of the output exchanges everything with everything: what is
/// not the old tree is never removed.
#[test]
fn u4_names_exchanged_while_a_tree_is_replaced() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    let around = sandbox.path("around");
    let exchange = |a: &std::path::Path, b: &std::path::Path| {
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
    };
    race(40, &["exchanged", "done"], |round| {
        let _ = fs::remove_dir_all(&around);
        sandbox.write("around/out/old", "old");
        sandbox.write("around/victim/secret", "secret");
        let victim = around.join("victim");
        let mut command = sandbox.command(&["unpack", "m.tar", "around/out", "--force"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (mut pause, mut exchanged) = (round % 40, false);
        while child.try_wait().unwrap().is_none() {
            let Some(name) = names(&around)
                .into_iter()
                .find(|n| n.starts_with(".modeloci-"))
            else {
                continue;
            };
            // From nothing to beyond the end of the run.
            if pause > 0 {
                thread::sleep(Duration::from_micros(100));
                pause -= 1;
                continue;
            }
            let temporary = around.join(name);
            exchanged |= match round % 3 {
                0 => exchange(&temporary, &victim),
                1 => exchange(&temporary.join("tree"), &victim),
                _ => exchange(&around.join("out"), &victim),
            };
        }
        let done = child.wait().unwrap().success();
        assert!(holds_secret(&around), "round {round}: removed");
        match (done, exchanged) {
            (true, _) => "done",
            (_, true) => "exchanged",
            _ => "refused",
        }
    });
}

#[test]
fn u5_an_empty_directory_is_filled() {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    let out = sandbox.mkdir("out");
    fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let node = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&out).unwrap());
    let before = node();
    sandbox.run_bounded(&UNPACK).ok();
    assert_tree(&out, &sample_files());
    assert_eq!(
        (node(), sandbox.names()),
        (before, vec!["m.tar".into(), "out".into()])
    );
    // Only once.
    sandbox.run_bounded(&UNPACK).fails(1, &["out", "exists"]);
    // What a killed run left is no model.
    sandbox.mkdir("killed/.modeloci-0123456789abcdef.tmp");
    let run = sandbox.run_bounded(&["unpack", "m.tar", "killed"]);
    run.fails(1, &["killed", "exists"]);
    // What cannot be had leaves it empty.
    let mut bad = Layout::sample();
    let name = bad.layer_name(0);
    bad.damage(&name, |bytes| bytes[2000] ^= 1);
    sandbox.write("bad.tar", bad.to_bytes());
    sandbox.mkdir("empty");
    let run = sandbox.run_bounded(&["unpack", "bad.tar", "empty"]);
    run.fails(1, &["a.bin"]);
    assert_eq!(names(&sandbox.path("empty")), [""; 0]);
}

#[test]
fn u5_a_mounted_volume_is_filled() {
    if !needs_root("mount a volume") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    let out = sandbox.mkdir("out");
    let mount = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program)
            .args(args)
            .arg(&out)
            .status();
        status.is_ok_and(|status| status.success())
    };
    let mounted = mount("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
    if !available("the right to mount a tmpfs", mounted) {
        return;
    }
    let filled = sandbox.run_bounded(&UNPACK);
    let found = names(&out);
    // No longer empty, and no name that another directory could take.
    let again = sandbox.run_bounded(&["unpack", "m.tar", "out", "--force"]);
    assert!(mount("umount", &[]));
    filled.ok();
    assert_eq!(found.len(), sample_files().len());
    again.fails(5, &["cannot replace", "out", "busy"]);
    assert_eq!(sandbox.names(), ["m.tar", "out"]);
}

#[test]
fn u3_concurrent_runs_for_one_output() {
    let sandbox = Sandbox::new();
    let files = archive(&sandbox);
    let runs: Vec<_> = thread::scope(|scope| {
        let run = || sandbox.run_bounded(&UNPACK);
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut done = 0;
    for run in runs {
        match run.code {
            Some(0) => done += 1,
            _ => drop(run.fails(1, &["out", "exists"])),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(sandbox.names(), ["m.tar", "out"]);
    assert_tree(&sandbox.path("out"), &borrowed(&files));
}

#[test]
fn u0_outputs_that_have_no_place() {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", Layout::sample().to_bytes());
    symlink("nowhere", sandbox.path("dangling")).unwrap();
    for (output, code) in [
        ("m.tar/out", 5),
        ("m.tar/absent/out", 5),
        ("dangling/out", 5),
        ("absent/../out", 5),
        // Where nobody can make a directory, not even root.
        ("/proc/absent/out", 5),
        (".", 1),
        ("/", 1),
        ("", 1),
    ] {
        for force in [&[][..], &["--force"]] {
            let args = [&["unpack", "m.tar", output][..], force].concat();
            let run = sandbox.run_bounded(&args).sober();
            assert!(run.code == Some(code) || run.code == Some(2), "{run:?}");
            run.one_error(&[]);
        }
    }
    let run = sandbox.run_bounded(&["unpack", "m.tar", "out", "--include", "no-such-*"]);
    run.fails(1, &["no-such-*"]);
    let run = sandbox.run_bounded(&["unpack", "m.tar", "out", "--include", "[a"]);
    run.fails(2, &["[a"]);
    assert_eq!(sandbox.names(), ["dangling", "m.tar"]);
}
