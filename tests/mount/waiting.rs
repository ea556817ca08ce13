//! Reads that wait for slow layers: what else is read meanwhile, and how their waits end.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    BINARY, Mounted, Packaging, Run, Scene, Server, mounts_at, needs_root, until,
};
use crate::support;
use crate::support::workspace::available;

/// An honest layer of some hundred kilobytes that takes seconds to check: 4 GiB of zeros, and `more`.
fn slow(frame: &[u8], more: usize) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("f").unwrap();
    header.set_mode(0o644);
    header.set_size((FRAMES * FRAME + more) as u64);
    header.set_cksum();
    let pack = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let mut blob = pack(header.as_bytes());
    (0..FRAMES).for_each(|_| blob.extend_from_slice(frame));
    blob.extend(pack(&vec![0; more.next_multiple_of(512) + 1024]));
    blob
}

/// Frames of a size that needs nothing kept aside.
const FRAME: usize = 4 << 20;
const FRAMES: usize = 1024;
/// Slow layers, of different blobs.
const SLOW: usize = 100;

/// A layer that takes no time.
fn quick(bytes: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    layer.append_data(&mut header, "f", bytes).unwrap();
    zstd::encode_all(&layer.into_inner().unwrap()[..], 1).unwrap()
}

fn scene() -> Scene {
    let scene = Scene::empty(Packaging::Foreign);
    let frame = zstd::encode_all(&vec![0; FRAME][..], 1).unwrap();
    let slow = (0..SLOW).map(|n| (format!("slow{n:03}/f"), slow(&frame, n)));
    let quick = (0..20).map(|n| (format!("quick{n}/f"), quick(&support::noise(n, 9_000))));
    let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    support::write_layers(&scene.path("m.tar"), media_type, slow.chain(quick));
    scene
}

/// Readers of all slow layers, of which nobody gets anything for a long time.
struct Readers(Vec<Child>);

impl Readers {
    fn of(server: &Server) -> Readers {
        let mut readers = Readers(Vec::new());
        for n in 0..SLOW {
            let path = server.mount.path(&format!("slow{n:03}/f"));
            readers.0.push(start(Command::new("cat").arg(path)));
        }
        thread::sleep(Duration::from_secs(1));
        readers
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in &mut self.0 {
            let _ = reader.kill();
            let _ = reader.wait();
        }
    }
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn r15_reads_and_look_ups_are_answered_at_once_while_a_hundred_wait() {
    let scene = scene();
    let mut server = scene.serve(&["--no-index"]);
    let readers = Readers::of(&server);
    let begun = Instant::now();
    for n in 0..20 {
        let path = server.mount.path(&format!("quick{n}/f"));
        assert_eq!(fs::read(path).unwrap(), support::noise(n, 9_000));
    }
    scene.shell("ls -lR mnt > /dev/null").ok();
    let took = begun.elapsed();
    assert!(
        server.mount.count("reads_in_flight") > 50,
        "they wait no more"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    // r5: however many wait.
    server.signal(libc::SIGTERM);
    let (code, took) = server.wait();
    assert!(
        code == Some(0) && took < Duration::from_secs(6),
        "{code:?} {took:?}"
    );
    drop(readers);
}

/// Kills a reader that has waited for a second; returns how long it took to go.
fn kill(mut reader: Child) -> Duration {
    thread::sleep(Duration::from_secs(1));
    assert_eq!(reader.try_wait().unwrap(), None, "it did not wait");
    let begun = Instant::now();
    reader.kill().unwrap();
    while reader.try_wait().unwrap().is_none() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it cannot be killed"
        );
        thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

#[test]
fn r11_readers_that_wait_can_be_killed() {
    let scene = scene();
    let server = scene.serve(&["--no-index"]);
    let readers = Readers::of(&server);
    let last = server.mount.path("slow099/f");
    let fault = "import mmap, sys\n\
                 file = open(sys.argv[1], 'rb')\n\
                 pages = mmap.mmap(file.fileno(), 1 << 20, prot=mmap.PROT_READ)\n\
                 pages.madvise(mmap.MADV_RANDOM)\n\
                 pages[4096]";
    let last = last.to_str().unwrap();
    let direct = format!("if={last}");
    let gentle = fault.replace("RANDOM", "NORMAL");
    let commands: [(&str, &[&str]); 4] = [
        ("a read", &["cat", last]),
        (
            "a read past the cache",
            &["dd", "iflag=direct", "bs=4096", &direct],
        ),
        ("a page fault alone", &["python3", "-c", fault, last]),
        ("a page fault", &["python3", "-c", &gentle, last]),
    ];
    for (what, command) in commands {
        let took = kill(start(Command::new(command[0]).args(&command[1..])));
        assert!(took < Duration::from_secs(8), "{what}: {took:?}");
    }
    // Who waits for the same is none the worse for it.
    let mut byte = [1];
    let first = File::open(server.mount.path("slow000/f"));
    first.unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0]);
    drop(readers);
}

/// A control group in which no more than so many processes and threads may be.
struct Few(PathBuf);

impl Few {
    /// `None` for those who may not make any.
    fn new(most: usize, number: usize) -> Option<Few> {
        if !needs_root("make control groups") {
            return None;
        }
        let root = Path::new("/sys/fs/cgroup");
        let base = match root.join("cgroup.controllers").exists() {
            true => {
                let _ = fs::write(root.join("cgroup.subtree_control"), "+pids");
                root.to_path_buf()
            }
            false => root.join("pids"),
        };
        let name = format!("modeloci-test-{}-{most}-{number}", std::process::id());
        let group = Few(base.join(name));
        let made = fs::create_dir(&group.0).is_ok()
            && fs::write(group.0.join("pids.max"), most.to_string()).is_ok();
        available("a control group for processes", made).then_some(group)
    }

    /// Mounts in the group.
    fn mount(&self, scene: &Scene, options: &[&str]) -> Run {
        let mut command = Command::new("sh");
        let script = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(&self.0).arg(BINARY);
        command
            .args(["mount", "m.tar", "mnt", "--no-index"])
            .args(options);
        command
            .current_dir(scene.path(""))
            .env("TMPDIR", scene.path("tmp"));
        scene.settle(&mut command);
        Run::of(&mut command)
    }

    fn is_empty(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.procs"))
            .unwrap()
            .is_empty()
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where there is no thread that decodes, makes a pass or waits, who asks does it: a layer that is as it
/// must be was an error. Where there are too few for a mount, that is an error at once.
#[test]
fn r19_few_threads_serve_every_kind_of_layer() {
    let content = |n: u64| support::noise(n, (5 << 20) + n as usize);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let layer = |n: u64, pack: &dyn Fn(&[u8]) -> Vec<u8>| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        let bytes = content(n);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, "f", &bytes[..]).unwrap();
        (format!("{n}/f"), pack(&tar.into_inner().unwrap()))
    };
    let gzip = |bytes: &[u8]| support::compressed::gzip(bytes, 1);
    let layers = (0..4).map(|n| layer(n, &gzip));
    let layers = layers.chain([layer(4, &zstd), layer(5, &|tar| tar.to_vec())]);
    let scene = Scene::empty(Packaging::Foreign);
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    support::write_layers(&scene.path("m.tar"), media_type, layers);
    let read = |mount: &Mounted, n: u64| -> Result<(), String> {
        let bytes = fs::read(mount.path(&format!("{n}/f"))).map_err(|e| format!("{n}: {e}"))?;
        match bytes == content(n) {
            true => Ok(()),
            false => Err(format!("{n}: other bytes")),
        }
    };
    let mut mounted = 0;
    for most in (5..20).chain([24, 28, 36]) {
        for (number, threads) in ["1", "2", "8"].into_iter().enumerate() {
            // What has ended there may count for a while.
            let Some(group) = Few::new(most, number) else {
                return;
            };
            let options = ["-o", &format!("threads={threads}")];
            let run = group.mount(&scene, &options);
            if run.code != Some(0) {
                run.one_error(&[]);
                assert_eq!(mounts_at(&scene.path("mnt")), 0);
            } else {
                mounted += 1;
                let mount = Mounted(scene.path("mnt"));
                for n in 0..6 {
                    assert_eq!(read(&mount, n), Ok(()), "{most}, {options:?}");
                }
                thread::scope(|scope| {
                    let (read, mount) = (&read, &mount);
                    let readers = (0..6).map(|n| scope.spawn(move || read(mount, n)));
                    for reader in readers.collect::<Vec<_>>() {
                        assert_eq!(
                            reader.join().unwrap(),
                            Ok(()),
                            "{most}, {options:?}, together"
                        );
                    }
                });
                mount.unmount();
            }
            until("the group is empty", || group.is_empty());
        }
    }
    assert!(mounted > 4, "{mounted}");
}
