//! Storage and a clock that misbehave under the serving process, by way of the C library.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Mounted, Packaging, Scene, Server, errno, mounts_at, until};
use crate::workspace::{has, output, python_has};

/// Length of the file that says what goes wrong.
const FAULT_BYTES: usize = 64;

/// A mount whose process is at the mercy of the test.
struct Faulty {
    scene: Scene,
    server: Server,
}

impl Faulty {
    /// `None` without a C compiler, which whoever builds the crate has.
    fn new(scene: Scene, options: &[&str]) -> Option<Faulty> {
        if !has("cc") {
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load/clib.c");
        let library = scene.path("clib.so");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        output(cc.arg(&library).arg(source).arg("-ldl"));
        fs::write(scene.path("faults"), [0; FAULT_BYTES]).unwrap();
        let mut command = scene.command(&["mount", "m.tar", "mnt", "--foreground"]);
        command
            .args(options)
            .env("LD_PRELOAD", &library)
            .env("FAULTS", scene.path("faults"))
            .env("ARCHIVE", scene.path("m.tar"))
            .stderr(Stdio::piped());
        let server = Server::start(command, scene.path("mnt"));
        Some(Faulty { scene, server })
    }

    fn fault(&self, what: &str) {
        let file = File::options().write(true).open(self.scene.path("faults"));
        let file = file.unwrap();
        let mut text = [0; FAULT_BYTES];
        text[..what.len()].copy_from_slice(what.as_bytes());
        // The first byte last, so that no half of it is read.
        file.write_all_at(&[0], 0).unwrap();
        file.write_all_at(&text[1..], 1).unwrap();
        file.write_all_at(&text[..1], 0).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.mount.path(name)
    }

    fn reads_everything(&self) {
        for (name, bytes) in &self.scene.files {
            let found = fs::read(self.path(name));
            assert!(
                &found.unwrap() == bytes,
                "{:?} {name}",
                self.scene.packaging
            );
        }
    }

    fn stops(mut self) {
        self.server.signal(libc::SIGTERM);
        let (code, took) = self.server.wait();
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(mounts_at(&self.server.mount.0), 0);
    }
}

#[test]
fn r3_a_disk_that_fails_and_recovers() {
    for scene in Scene::each() {
        let Some(faulty) = Faulty::new(scene, &["--no-index"]) else {
            return;
        };
        for errno_of_disk in [libc::EIO, libc::ESTALE] {
            faulty.fault(&format!("errno {errno_of_disk}"));
            for name in ["weights.bin", "nested/tokenizer.json", "config.json"] {
                let result = fs::read(faulty.path(name));
                assert_eq!(errno(result), libc::EIO, "{:?}", faulty.scene.packaging);
            }
        }
        faulty.fault("");
        faulty.reads_everything();
        // In the middle of a file, too.
        let status = faulty.server.mount.status();
        assert_eq!(status["panics"], 0);
        assert!(status["failures"].as_u64().unwrap() > 0);
        faulty.stops();
    }
}

#[test]
fn r3_a_disk_that_fails_within_a_file() {
    for scene in Scene::each_packed() {
        let Some(faulty) = Faulty::new(scene, &[]) else {
            return;
        };
        let bytes = faulty.scene.bytes("weights.bin");
        let file = File::open(faulty.path("weights.bin")).unwrap();
        // Without readahead, so that the rest is not there yet.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        let mut buf = [0; 4096];
        let last = bytes.len() as u64 - 4096;
        file.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == bytes[..4096]);
        faulty.fault("errno 5");
        let result = file.read_exact_at(&mut buf, last);
        assert_eq!(errno(result), libc::EIO);
        file.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == bytes[..4096], "what was verified is still there");
        faulty.fault("");
        file.read_exact_at(&mut buf, last).unwrap();
        assert!(buf == bytes[last as usize..]);
        faulty.stops();
    }
}

#[test]
fn r4_interrupted_and_short_reads_of_the_archive() {
    for fault in ["short", "eintr"] {
        for scene in Scene::each() {
            let Some(faulty) = Faulty::new(scene, &[]) else {
                return;
            };
            faulty.fault(fault);
            faulty.reads_everything();
            assert_eq!(faulty.server.mount.count("failures"), 0);
            faulty.stops();
        }
    }
}

#[test]
fn r14_a_clock_that_moves_by_ten_years() {
    let years = 10 * 365 * 24 * 3600_i64;
    for scene in Scene::each() {
        let log = scene.path("log");
        let Some(faulty) = Faulty::new(scene, &["--log-file", log.to_str().unwrap()]) else {
            return;
        };
        let part = |name: &str| {
            let found = fs::read(faulty.path(name)).unwrap();
            assert!(found == faulty.scene.bytes(name), "{name}");
        };
        part("config.json");
        faulty.fault(&format!("clock {years}"));
        faulty.server.signal(libc::SIGUSR1);
        // The log shows that the process lives in the future.
        until("the status is logged", || {
            let log = fs::read_to_string(&log).unwrap();
            let line = log.lines().find(|line| line.contains("status: "));
            line.is_some_and(|line| &line[..4] > "2030")
        });
        part("nested/tokenizer.json");
        faulty.fault(&format!("clock -{years}"));
        part("weights.bin");
        let status = faulty.server.mount.status();
        assert_eq!(status["failures"], 0);
        assert!(status["uptime_seconds"].as_u64().unwrap() < 60, "{status}");
        faulty.reads_everything();
        faulty.fault(&format!("clock {years}"));
        faulty.stops();
    }
}

/// What a read answers with EIO is SIGBUS in a mapping, and only on the pages of that chunk.
#[test]
fn d3_a_mapped_page_of_a_damaged_chunk_is_sigbus() {
    if !python_has("mmap") {
        return;
    }
    let script = "
import mmap, sys
with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as area:
    area.madvise(mmap.MADV_RANDOM)
    print(area[int(sys.argv[2])])
";
    for packaging in ["auto", "none"] {
        let noise = crate::support::noise(41, 4 << 20);
        let files = vec![("weights.bin".to_string(), noise)];
        let scene = Scene::packaged(Packaging::Packed(packaging), files);
        let archive = File::options()
            .write(true)
            .open(scene.path("m.tar"))
            .unwrap();
        // In the third chunk of a megabyte.
        archive.write_all_at(b"damage", 9 << 18).unwrap();
        let mount: Mounted = scene.mount(&[]);
        let page = |at: usize| {
            let mut python = Command::new("python3");
            python.args(["-c", script]).arg(mount.path("weights.bin"));
            python.arg(at.to_string()).output().unwrap()
        };
        use std::os::unix::process::ExitStatusExt as _;
        let damaged = page((2 << 20) + 100);
        assert_eq!(damaged.status.signal(), Some(libc::SIGBUS), "{damaged:?}");
        for at in [100, (3 << 20) + 4096] {
            let whole = page(at);
            let byte = String::from_utf8(whole.stdout).unwrap();
            assert_eq!(byte.trim(), scene.bytes("weights.bin")[at].to_string());
        }
    }
}
