//! Files that change, disks that fill, runs that are killed.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

const C: usize = limits::MIN_CHUNK_BYTES as usize;

/// Packs, and does something to the model when the first chunk was written: the reader is then a
/// few chunks into a file of a hundred.
fn pack_while(dir: &tempfile::TempDir, act: impl Fn(&Path) + Sync) -> Result<Packed> {
    let acted = AtomicBool::new(false);
    let options = PackOptions {
        jobs: 1,
        ..options()
    };
    let output = Output::File(dir.path().join("out.tar"));
    let model = model_of(dir);
    let result = pack(&model, &config(), &output, &options, &|done, _| {
        if done > 0 && !acted.swap(true, Ordering::Relaxed) {
            act(&model);
        }
    });
    assert_eq!(listing(dir.path()), ["model"], "something was left");
    result
}

fn big() -> tempfile::TempDir {
    scratch(&[("a", &vec![7; 100 * C]), ("z", b"last")])
}

#[test]
fn k1_a_file_that_grows() {
    let text = problem(pack_while(&big(), |model| {
        let mut file = fs::File::options()
            .append(true)
            .open(model.join("a"))
            .unwrap();
        file.write_all(b"more").unwrap();
    }));
    assert!(
        text.ends_with("model/a: grew while it was packed"),
        "{text}"
    );
}

#[test]
fn k9_cancelled() {
    static CANCEL: AtomicBool = AtomicBool::new(false);
    let dir = big();
    let options = PackOptions {
        cancel: Some(&CANCEL),
        ..options()
    };
    let output = Output::File(dir.path().join("out.tar"));
    let stop = |done, _| CANCEL.store(done > 0, Ordering::Relaxed);
    let text = problem(pack(&model_of(&dir), &config(), &output, &options, &stop));
    assert!(text.ends_with("out.tar: interrupted"), "{text}");
    assert_eq!(listing(dir.path()), ["model"], "something was left");
}

#[test]
fn k1_a_file_that_shrinks() {
    let text = problem(pack_while(&big(), |model| {
        let file = fs::File::options()
            .write(true)
            .open(model.join("a"))
            .unwrap();
        file.set_len(50 * C as u64).unwrap();
    }));
    assert!(
        text.ends_with("model/a: shrank while it was packed"),
        "{text}"
    );
}

#[test]
fn k1_a_file_that_changes() {
    let text = problem(pack_while(&big(), |model| {
        let file = fs::File::options()
            .write(true)
            .open(model.join("a"))
            .unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 99 * C as u64).unwrap();
    }));
    assert!(
        text.ends_with("model/a: changed while it was packed"),
        "{text}"
    );
}

#[test]
fn k1_a_file_that_is_replaced_before_it_is_read() {
    for target in ["/etc/passwd", ""] {
        let text = problem(pack_while(&big(), |model| {
            let z = model.join("z");
            fs::remove_file(&z).unwrap();
            if target.is_empty() {
                assert!(Command::new("mkfifo").arg(&z).status().unwrap().success());
            } else {
                symlink(target, &z).unwrap();
            }
        }));
        assert!(
            text.ends_with("model/z: changed while it was packed"),
            "{text}"
        );
    }
}

#[test]
fn k2_a_file_that_vanishes() {
    let text = problem(pack_while(&big(), |model| {
        fs::remove_file(model.join("z")).unwrap();
    }));
    assert!(
        text.ends_with("model/z: vanished while it was packed"),
        "{text}"
    );
}

/// Runs one of the ignored tests below in a process of its own, in `dir`.
fn child(shell: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", shell])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("pack::tests::faults::{test}")])
        .args(["--ignored", "--nocapture"])
        .current_dir(dir)
        .stdout(Stdio::piped());
    command
}

#[test]
#[ignore = "runs as a child of other tests"]
fn child_pack() {
    match pack_in(Path::new("."), &options()) {
        Ok(_) => println!("packed"),
        Err(error) => println!("failed: {:?}: {error}", error.kind()),
    }
}

#[test]
fn k2_permission_denied() {
    let dir = scratch(&[("a", b"1"), ("secret", b"2")]);
    let mode = fs::Permissions::from_mode(0o000);
    fs::set_permissions(model_of(&dir).join("secret"), mode).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Root reads everything, unless it gives up the capability.
    let shell = if rustix::process::geteuid().is_root() {
        "exec setpriv --bounding-set -dac_override,-dac_read_search \"$0\" \"$@\""
    } else {
        "exec \"$0\" \"$@\""
    };
    let output = child(shell, "child_pack", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("failed: Environment: cannot open ./model/secret: permission denied"),
        "{text}"
    );
    assert_eq!(listing(dir.path()), ["model"]);
}

#[test]
fn k3_a_sparse_file_is_read_in_bounded_memory() {
    let dir = scratch(&[]);
    let file = fs::File::create(model_of(&dir).join("sparse")).unwrap();
    file.set_len(256 << 20).unwrap();
    // 64 MiB of address space for data beyond what the program starts with.
    let shell = "ulimit -d 131072; exec \"$0\" \"$@\"";
    let output = child(shell, "child_pack", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("packed"), "{text}");
}

#[test]
fn k3_a_file_whose_table_no_reader_accepts() {
    let dir = scratch(&[]);
    let file = fs::File::create(model_of(&dir).join("huge")).unwrap();
    // 72 bytes for each 64 KiB.
    file.set_len(300 << 30).unwrap();
    let text = problem(pack_in(dir.path(), &options()));
    assert!(
        text.starts_with("huge: ") && text.ends_with("use a larger --chunk-size"),
        "{text}"
    );
}

#[test]
fn k8_a_full_disk_leaves_nothing() {
    for files in [1, 200] {
        let dir = scratch(&[]);
        for n in 0..files {
            let content = noise(n as u64, 2 << 20 >> (files / 100));
            fs::write(model_of(&dir).join(format!("{n:03}")), content).unwrap();
        }
        // Blocks of 1 KiB: writing fails after half a megabyte.
        let shell = "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"";
        let output = child(shell, "child_pack", dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = "failed: Environment: cannot write ./out.tar: file too large";
        assert!(text.contains(expected), "{text}");
        assert_eq!(listing(dir.path()), ["model"]);
    }
}

#[test]
fn k8_a_stream_that_cannot_be_written() {
    let dir = scratch(&[("a", &noise(1, 30 * C))]);
    let model = model_of(&dir);
    let walk::Input::Directory(root) = walk::open(&model).unwrap() else {
        panic!("a file")
    };
    let reach = walk::Reach::of(root, &model, false).unwrap();
    let tree = walk::walk(
        reach,
        &model,
        &Skip::default(),
        &mut Selection::new(&options()).unwrap(),
    )
    .unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let archive = Archive::to_stream(Box::new(full), Path::new("stream"), 0).unwrap();
    let settings = Settings::new(&options()).unwrap();
    let result = super::super::run::write(tree, about(), archive, &settings, &|_, _| {});
    let error = result.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Environment);
    assert!(
        error
            .to_string()
            .starts_with("cannot write stream: no space left")
    );
}

#[test]
fn k9_killed_at_any_moment() {
    let dir = scratch(&[]);
    for n in 0..40 {
        let content = noise(n, 500_000);
        fs::write(model_of(&dir).join(format!("{n:02}")), content).unwrap();
    }
    let mut complete = 0;
    for delay in [0, 10, 20, 40, 60, 80, 120, 200, 300, 5_000] {
        let mut run = child("exec \"$0\" \"$@\"", "child_pack", dir.path())
            .spawn()
            .unwrap();
        for _ in 0..delay {
            std::thread::sleep(Duration::from_millis(1));
            if run.try_wait().unwrap().is_some() {
                break;
            }
        }
        run.kill().unwrap();
        run.wait().unwrap();
        match listing(dir.path()).as_slice() {
            [model] => assert_eq!(model, "model"),
            [_, output] => {
                assert_eq!(output, "out.tar");
                let written = Written::read(&dir.path().join("out.tar"));
                assert_eq!(written.layers().len(), 40);
                fs::remove_file(dir.path().join("out.tar")).unwrap();
                complete += 1;
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(complete > 0, "no run was long enough");
}
