//! Damage and trouble while mounted: one file fails, the rest goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, chown};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{
    Mounted, Packaging, Run, Scene, Server, errno, is_root, kill, lives, mounts_at, until,
};
use crate::support;

/// Flips a bit in the middle of the largest layer; returns where.
fn damage(scene: &Scene) -> u64 {
    let archive = fs::read(scene.path("m.tar")).unwrap();
    // The weights do not compress, so their layer is most of the archive.
    let at = archive.len() as u64 / 2;
    flip(scene, at);
    at
}

fn writable(scene: &Scene) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(scene.path("m.tar")).unwrap()
}

fn flip(scene: &Scene, at: u64) {
    let file = writable(scene);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn d3_one_damaged_layer_fails_alone() {
    Scene::each().for_each(fails_alone);
}

fn fails_alone(scene: Scene) {
    damage(&scene);
    let log = scene.path("log");
    let mount = scene.mount(&["--log-file", log.to_str().unwrap()]);
    for _ in 0..3 {
        assert_eq!(errno(fs::read(mount.path("weights.bin"))), libc::EIO);
    }
    for (name, bytes) in scene.files.iter().filter(|(name, _)| name != "weights.bin") {
        assert_eq!(&fs::read(mount.path(name)).unwrap(), bytes, "{name}");
    }
    assert!(mount.count("failures") > 0);
    let pid = mount.pid();
    mount.unmount();
    // The log is written in the background; complete when the process has ended.
    until("the process ends", || !lives(pid));
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<_> = log.lines().filter(|l| l.contains(" error: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("weights.bin") && lines[0].contains("sha256:"),
        "{log}"
    );
}

#[test]
fn d3_prefetch_goes_on_after_a_damaged_layer() {
    for scene in Scene::each() {
        damage(&scene);
        let log = scene.path("log");
        let mount = scene.mount(&["--prefetch", "--log-file", log.to_str().unwrap()]);
        scene.until_prefetched();
        let log = fs::read_to_string(log).unwrap();
        let errors: Vec<_> = log.lines().filter(|l| l.contains(" error: ")).collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert!(errors[0].contains("read weights.bin"), "{log}");
        let others = || scene.files.iter().filter(|(name, _)| name != "weights.bin");
        let bytes: usize = others().map(|(_, bytes)| bytes.len()).sum();
        assert!(mount.count("prefetched_bytes") >= bytes as u64);
        for (name, bytes) in others() {
            assert_eq!(&fs::read(mount.path(name)).unwrap(), bytes, "{name}");
        }
        assert_eq!(errno(fs::read(mount.path("weights.bin"))), libc::EIO);
    }
}

#[test]
fn d3_a_file_with_damage_does_not_count_as_verified() {
    Scene::each_packed().for_each(not_verified);
}

fn not_verified(scene: Scene) {
    damage(&scene);
    let mount = scene.mount(&[]);
    let path = mount.path("weights.bin");
    let verified = || {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(&path, "user.modeloci.verified", &mut value[..]);
        String::from_utf8(value[..length.unwrap()].to_vec()).unwrap()
    };
    let mut first = [0; 4096];
    let file = File::open(&path).unwrap();
    file.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, scene.bytes("weights.bin")[..4096]);
    assert_eq!(verified(), "true");
    assert_eq!(errno(fs::read(&path)), libc::EIO);
    assert_eq!(verified(), "false");
    // The chunks that are whole are still served.
    file.read_exact_at(&mut first, 1 << 20).unwrap();
    assert_eq!(verified(), "false");
}

/// What has failed is told: for monitoring by the exit code, in the status with place and reason,
/// and by the file itself.
#[test]
fn d3_what_is_damaged_is_told() {
    for scene in Scene::each() {
        damage(&scene);
        let mount = scene.mount(&[]);
        let status = |more: &[&str]| scene.run(&[&["status", "mnt"], more].concat());
        let damaged = |name: &str| {
            let mut value = [0; 8];
            let length =
                rustix::fs::getxattr(mount.path(name), "user.modeloci.damaged", &mut value[..]);
            length.map(|length| value[..length].to_vec())
        };
        fs::read(mount.path("config.json")).unwrap();
        status(&["--check"]).ok();
        assert_eq!(errno(fs::read(mount.path("weights.bin"))), libc::EIO);
        assert_eq!(damaged("weights.bin").unwrap(), b"true");
        assert_eq!(damaged("config.json"), Err(rustix::io::Errno::NODATA));
        let checked = status(&["--check"]);
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(1), ""));
        let told = status(&[]).ok().text().to_string();
        assert!(
            told.contains("at byte ") && told.contains("weights.bin"),
            "{told}"
        );
        let json: serde_json::Value = status(&["--json"]).ok().json();
        for failure in json["last_failures"].as_array().unwrap() {
            let fields = crate::documented::fields(&["`last_failures`"]);
            crate::documented::assert_documented(failure, &fields);
        }
        let last = json["last_failures"].as_array().unwrap();
        assert_eq!(last.len(), 1, "one for each file: {json}");
        assert_eq!(last[0]["path"], "weights.bin");
        assert!(
            last[0]["error"].as_str().unwrap().contains("sha256:"),
            "{json}"
        );
        assert!(last[0]["time"].as_u64().unwrap() > 1_700_000_000, "{json}");
    }
}

/// All mounts of the machine, among them ours, and one that does not answer.
#[test]
fn all_mounts_are_told_without_a_mount_point() {
    let (one, two) = (Scene::new(), Scene::new());
    let (first, second) = (one.mount(&[]), two.mount(&[]));
    let told = one.run(&["status", "--json"]);
    let list: Vec<serde_json::Value> = serde_json::from_slice(&told.stdout).unwrap();
    for mount in [&first, &second] {
        let point = mount.0.to_str().unwrap();
        assert!(
            list.iter().any(|status| status["mountpoint"] == point),
            "{}",
            told.text()
        );
    }
    kill(second.pid(), libc::SIGKILL);
    until("its process is gone", || {
        one.run(&["status"]).code == Some(5)
    });
    let told = one.run(&["status"]);
    assert_eq!(told.code, Some(5));
    assert!(
        told.text().contains(first.0.to_str().unwrap()),
        "{}",
        told.text()
    );
    assert!(
        told.stderr.contains(second.0.to_str().unwrap()),
        "{}",
        told.stderr
    );
}

#[test]
fn r1_an_archive_cut_short_is_an_error() {
    for scene in Scene::each() {
        let mount = scene.mount(&[]);
        let file = writable(&scene);
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        assert_eq!(errno(fs::read(mount.path("weights.bin"))), libc::EIO);
        // What was overwritten in place is noticed too.
        file.write_all_at(&[0; 4096], 0).unwrap();
        let result = fs::read(mount.path("config.json"));
        if let Ok(bytes) = result {
            assert_eq!(bytes, scene.bytes("config.json"));
        }
    }
}

/// The archive of another model, byte for byte over ours: nothing of it is ever served.
#[test]
fn r1_an_archive_overwritten_in_place_is_an_error() {
    for scene in Scene::each() {
        let others = scene.files.iter().map(|(name, bytes)| {
            let mut bytes = bytes.clone();
            bytes.reverse();
            (name.clone(), bytes)
        });
        let other = Scene::packaged(scene.packaging, others.collect());
        let mount = scene.mount(&["--cache-size", "64KiB"]);
        let read = fs::read(mount.path("config.json")).unwrap();
        assert_eq!(read, scene.bytes("config.json"));
        let mut weights = [0; 100];
        let file = File::open(mount.path("weights.bin")).unwrap();
        file.read_exact_at(&mut weights, 0).unwrap();
        let archive = writable(&scene);
        archive
            .write_all_at(&fs::read(other.path("m.tar")).unwrap(), 0)
            .unwrap();
        // What the kernel keeps was verified; all else is refused.
        let tail = scene.bytes("weights.bin").len() as u64 - 100;
        let result = file.read_exact_at(&mut weights, tail);
        assert_eq!(errno(result), libc::EIO, "{:?}", scene.packaging);
        let result = fs::read(mount.path("nested/tokenizer.json"));
        assert_eq!(errno(result), libc::EIO, "{:?}", scene.packaging);
        assert_eq!(fs::read(mount.path("config.json")).unwrap(), read);
        assert!(fs::read(mount.path("empty")).is_ok_and(|bytes| bytes.is_empty()));
        assert_eq!(mount.count("panics"), 0);
    }
}

#[test]
fn r2_an_archive_renamed_over_and_deleted_stays_readable() {
    for scene in Scene::each() {
        let mount = scene.mount(&[]);
        fs::write(scene.path("other"), "something else").unwrap();
        fs::rename(scene.path("other"), scene.path("m.tar")).unwrap();
        fs::remove_file(scene.path("m.tar")).unwrap();
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
    }
}

#[test]
fn r3_what_is_healthy_again_is_served_again() {
    // With a chunk table every read checks what it reads; a layer without one stays bad.
    for scene in Scene::each_packed() {
        let at = damage(&scene);
        let mount = scene.mount(&[]);
        assert_eq!(errno(fs::read(mount.path("weights.bin"))), libc::EIO);
        flip(&scene, at);
        assert!(fs::read(mount.path("weights.bin")).unwrap() == scene.bytes("weights.bin"));
    }
}

#[test]
fn r8_few_descriptors_are_enough() {
    for scene in Scene::each() {
        scene
            .shell("ulimit -n 32 && exec \"$2\" mount m.tar mnt --no-index")
            .ok();
        let mount = Mounted(scene.path("mnt"));
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
    }
}

#[test]
fn r8_too_few_threads_are_a_clear_error() {
    let scene = Scene::new();
    // Limits of processes do not hold for root.
    let user = if is_root() {
        chown(scene.path("mnt"), Some(65534), Some(65534)).unwrap();
        "setpriv --reuid=65534 --regid=65534 --clear-groups"
    } else {
        ""
    };
    let mount = Mounted(scene.path("mnt"));
    let done = scene.shell(&format!(
        "exec {user} prlimit --nproc=4 \"$2\" mount m.tar mnt --no-index"
    ));
    done.refused(5, "error: ");
    assert_eq!(mounts_at(&mount.0), 0);
}

#[test]
fn r11_a_reader_killed_in_a_read_leaks_nothing() {
    for packaging in [Packaging::Foreign, Packaging::Packed("auto")] {
        let big = support::noise(3, 24 << 20);
        killed_in_reads(Scene::packaged(packaging, vec![("big".into(), big)]));
    }
    // Chunks that take long to decode.
    let text = b"a layer of text, decoded slowly ".repeat(750_000);
    let files = vec![("big".into(), text)];
    killed_in_reads(Scene::packaged(Packaging::Packed("gzip:6"), files));
}

fn killed_in_reads(scene: Scene) {
    let mount = scene.mount(&["--cache-size", "1MiB"]);
    let pid = mount.server();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut before = None;
    for round in 0..10 {
        let mut cat = Command::new("cat")
            .arg(mount.path("big"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // On a busy machine it may be killed before it reads at all, but not each time.
        std::thread::sleep(Duration::from_millis(5 * (1 + round)));
        cat.kill().unwrap();
        cat.wait().unwrap();
        until("no read is left", || mount.count("reads_in_flight") == 0);
        // A foreign layer has its temporary files from the first read on.
        if mount.count("bytes_served") > 0 {
            before.get_or_insert_with(descriptors);
        }
    }
    assert!(fs::read(mount.path("big")).unwrap() == scene.bytes("big"));
    assert!(descriptors() <= before.unwrap(), "{before:?} at first");
    // Nothing holds the mount either.
    mount.unmount();
}

/// Reads everything while the process wants to log each request.
fn serves_everything(scene: &Scene, mut server: Server) {
    for _ in 0..3 {
        for n in 0..400 {
            assert!(fs::metadata(server.mount.path(&format!("absent-{n}"))).is_err());
        }
        for (name, bytes) in &scene.files {
            assert!(&fs::read(server.mount.path(name)).unwrap() == bytes);
        }
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    assert_eq!(mounts_at(&server.mount.0), 0);
}

#[test]
fn r13_a_full_stderr_blocks_nothing() {
    let scene = Scene::new();
    // A pipe that nobody reads.
    let server = scene.serve(&["-vvv"]);
    serves_everything(&scene, server);
}

#[test]
fn r13_a_closed_stderr_blocks_nothing() {
    let scene = Scene::new();
    let mut server = scene.serve(&["-vvv"]);
    drop(server.child.stderr.take());
    serves_everything(&scene, server);

    let command = scene.script("exec \"$2\" mount m.tar mnt -f -vvv 2>&- >&- <&-", &[]);
    let server = Server::start(command, scene.path("mnt"));
    serves_everything(&scene, server);
}

#[test]
fn a_slow_layer_holds_up_nobody_else() {
    // As many readers as there are event loops, and look-ups meanwhile.
    let files = (0..6).map(|n| (format!("big-{n}"), support::noise(n, 8 << 20)));
    let scene = Scene::of(files.collect());
    let mount = scene.mount(&["-o", "threads=2"]);
    std::thread::scope(|scope| {
        for (name, bytes) in &scene.files {
            let path = mount.path(name);
            scope.spawn(move || {
                let mut file = File::open(path).unwrap();
                file.seek(SeekFrom::Start(7 << 20)).unwrap();
                let mut tail = Vec::new();
                file.read_to_end(&mut tail).unwrap();
                assert!(tail == bytes[7 << 20..]);
            });
        }
        for n in 0..50 {
            assert!(fs::metadata(mount.path(&format!("absent-{n}"))).is_err());
        }
    });
    assert_eq!(mount.count("panics"), 0);
}

#[test]
fn a_full_log_disk_does_not_end_the_mount() {
    let scene = Scene::new();
    let mut command = scene.command(&["mount", "m.tar", "mnt", "--log-file", "/dev/full", "-vvv"]);
    Run::of(&mut command).ok();
    let mount = Mounted(scene.path("mnt"));
    assert_eq!(
        fs::read(mount.path("config.json")).unwrap(),
        scene.bytes("config.json")
    );
}

/// The kernel asks for many pieces of a file at once; they must not take all threads.
#[test]
fn one_read_that_waits_for_a_layer_holds_up_no_other_file() {
    // A gigabyte, which takes a second to decode.
    let layer = |name: &str, size: u64, content: &mut dyn Iterator<Item = Vec<u8>>| {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_path(name).unwrap();
        header.set_cksum();
        let layer = support::compressed::gzip_of(1, |out| {
            out.write_all(header.as_bytes()).unwrap();
            content.for_each(|bytes| out.write_all(&bytes).unwrap());
            out.write_all(&[0; 1024]).unwrap();
        });
        (name.to_string(), layer)
    };
    let zeros = vec![0; 1 << 20];
    let layers = [
        layer("big", 1 << 30, &mut std::iter::repeat_n(zeros, 1 << 10)),
        layer("small", 512, &mut std::iter::once(vec![7; 512])),
    ];
    let scene = Scene::empty(Packaging::Foreign);
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    support::write_layers(&scene.path("m.tar"), media_type, layers.into_iter());
    // The small file must be there while the others wait. A busy machine may be too late to see that.
    let seen = (0..10).any(|_| {
        let mount = scene.mount(&["-o", "threads=2", "--no-index"]);
        std::thread::scope(|scope| {
            // As many at once as root's readahead makes of one read.
            let readers: Vec<_> = (1..=16)
                .map(|n| {
                    let path = mount.path("big");
                    scope.spawn(move || {
                        let mut piece = vec![1; 64 << 10];
                        let file = File::open(path).unwrap();
                        file.read_exact_at(&mut piece, (1 << 30) - (n << 20))
                            .unwrap();
                        assert!(piece == vec![0; 64 << 10]);
                    })
                })
                .collect();
            let finished = || readers.iter().any(|reader| reader.is_finished());
            until("the reads wait", || {
                mount.count("reads_in_flight") > 8 || finished()
            });
            assert_eq!(fs::read(mount.path("small")).unwrap(), [7; 512]);
            mount.count("reads_in_flight") > 8 && !finished()
        })
    });
    assert!(seen, "another file waits for the layer");
}
