//! r9: what may be read in the memory that is promised, enforced by a control group.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use modeloci::limits;

use crate::harness::{BINARY, Mounted, PACKAGINGS, Packaging, Run, Scene, kill, lives, until};
use crate::size;
use crate::support;
use crate::support::random::Random;
use crate::workspace::{available, python_has};

pub(crate) const MIB: u64 = 1 << 20;
const CACHE: u64 = 16 * MIB;

/// A control group with a limit of memory, page cache included, and without swap: what is promised is
/// memory. Removed at the end.
pub(crate) struct Group(PathBuf);

impl Group {
    /// `None` for those who may not make any.
    pub(crate) fn new(limit: u64) -> Option<Group> {
        if !crate::harness::needs_root("make control groups") {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        if unified {
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let base = if unified {
            root.to_path_buf()
        } else {
            root.join("memory")
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("modeloci-test-{}-{count}", std::process::id()));
        let file = if unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        let made = fs::create_dir(&path).is_ok();
        let group = made.then_some(Group(path));
        let limited = group
            .as_ref()
            .is_some_and(|group| fs::write(group.0.join(file), limit.to_string()).is_ok());
        available("a control group for memory", limited).then_some(())?;
        let group = group?;
        // The older interface limits both together.
        let (file, most) = if unified {
            ("memory.swap.max", 0)
        } else {
            ("memory.memsw.limit_in_bytes", limit)
        };
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        let without =
            fs::write(group.0.join(file), most.to_string()).is_ok() || swaps.lines().count() < 2;
        available("a control group without swap", without).then_some(group)
    }

    /// A command that runs in the group.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"",
                "sh",
            ])
            .arg(&self.0)
            .arg(program);
        command
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn killed(&self) -> u64 {
        let read = |name| fs::read_to_string(self.0.join(name));
        let events = read("memory.events").or_else(|_| read("memory.oom_control"));
        let events = events.unwrap();
        let line = events.lines().find_map(|l| l.strip_prefix("oom_kill "));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Chunks of every kind: noise, text, and what lies between.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut bytes = support::noise(31, len);
    for (number, piece) in bytes.chunks_mut(300_000).enumerate() {
        match number % 3 {
            0 => {}
            1 => piece
                .iter_mut()
                .for_each(|byte| *byte = b"a text of few letters"[usize::from(*byte) % 21]),
            _ => piece
                .iter_mut()
                .step_by(2)
                .for_each(|byte| *byte = 0x3c | (*byte & 3)),
        }
    }
    bytes
}

/// Reads a little everywhere, so that the cache is full of what may be wanted again. Then maps the
/// files of the second directory, in pieces that leave the page cache no time to help,
/// then reads them with read(2), and compares with the first. Ends by itself.
const READER: &str = "
import mmap, os, random, sys
model, mount, length = sys.argv[1:]
length = int(length)
for name in sorted(os.listdir(model)):
    with open(os.path.join(model, name), 'rb') as file, open(os.path.join(mount, name), 'rb') as other:
        os.posix_fadvise(other.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, os.fstat(file.fileno()).st_size, 1 << 19):
            assert os.pread(other.fileno(), 4096, at) == os.pread(file.fileno(), 4096, at), (name, at)
for name in os.listdir(model):
    with open(os.path.join(model, name), 'rb') as file, open(os.path.join(mount, name), 'rb') as other:
        size = os.fstat(file.fileno()).st_size
        pieces = list(range(0, size, length))
        random.Random(3).shuffle(pieces)
        with mmap.mmap(other.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as area:
            for at in pieces:
                wanted = os.pread(file.fileno(), length, at)
                assert area[at:at + length] == wanted, (name, at)
        at = 0
        while piece := other.read(1 << 20):
            assert piece == os.pread(file.fileno(), len(piece), at), (name, at)
            at += len(piece)
        assert at == size
";

/// Without a size for the cache the mount takes what there is: readers of a model that is larger than
/// the group, in no order, are all answered.
#[test]
fn r16_the_default_cache_follows_the_group() {
    let bytes = content(size(160 << 20, 400 << 20));
    let mut scene = Scene::empty(Packaging::Packed("auto"));
    fs::create_dir(scene.path("model")).unwrap();
    fs::write(scene.path("model/weights.bin"), &bytes).unwrap();
    scene.pack(&[]);
    let mount_in = |limit: u64, options: &[&str]| {
        let group = Group::new(limit)?;
        let mut command = group.command(BINARY);
        scene.settle(&mut command);
        command
            .args(["mount", "m.tar", "mnt", "--no-index"])
            .args(options);
        Some((group, Run::of(&mut command)))
    };
    let Some((group, done)) = mount_in(128 * MIB, &[]) else {
        return;
    };
    let done = done.ok();
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    let mount = Mounted(scene.path("mnt"));
    assert_eq!(mount.count("cache_size_bytes"), 48 * MIB);
    let file = fs::File::open(mount.path("weights.bin")).unwrap();
    let mut random = Random(1);
    for _ in 0..2_000 {
        use std::os::unix::fs::FileExt as _;
        let at = random.below(bytes.len() - 4096);
        let mut buf = [0; 4096];
        file.read_exact_at(&mut buf, at as u64).unwrap();
        assert!(buf == bytes[at..at + 4096], "{at}");
    }
    drop(file);
    mount.unmount();
    assert_eq!(group.killed(), 0);

    let (_small, done) = mount_in(80 * MIB, &[]).unwrap();
    done.refused(5, "the memory control group: has 80 MiB, a mount needs 96");
    let (_group, done) = mount_in(128 * MIB, &["--cache-size", "256MiB"]).unwrap();
    let mount = Mounted(scene.path("mnt"));
    assert!(done.stderr.contains("may take 320 MiB"), "{}", done.stderr);
    assert_eq!(mount.count("cache_size_bytes"), 256 * MIB);
    mount.unmount();
}

/// On a machine of many cores, in a group that has not room for so many threads: all commands that work on
/// threads take fewer, and end well. Where not even one fits, they say what would do.
#[test]
fn r16_commands_on_many_cores_keep_within_a_small_group() {
    let bytes = content(size(24 << 20, 400 << 20));
    let scene = Scene::empty(Packaging::Packed("auto"));
    fs::create_dir(scene.path("model")).unwrap();
    for (number, part) in bytes.chunks(bytes.len() / 40 + 1).enumerate() {
        fs::write(scene.path(&format!("model/{number}.bin")), part).unwrap();
    }
    let in_group = |limit: u64, args: &[&str]| {
        let group = Group::new(limit)?;
        let mut command = group.command(BINARY);
        scene.settle(&mut command);
        // The page cache of what is read and written counts, too, and can always be dropped.
        let done = Run::of(command.env("MODELOCI_TEST_CORES", "64").args(args));
        assert_eq!(group.killed(), 0, "{args:?} in {} MiB", limit / MIB);
        Some(done)
    };
    let name = ["--name", "m", "--version", "1", "--force", "-o", "m.tar"];
    let runs = [
        (128, &[][..]),
        (300, &["--chunk-size", "16MiB"]),
        (128, &["--chunk-size", "4MiB"]),
        (160, &["--compression", "zstd"]),
        (400, &["--compression", "zstd:19", "--chunk-size", "2MiB"]),
    ];
    for (mib, options) in runs.into_iter().take(size(2, 5)) {
        let pack = [&["pack", "model"], &name[..], options].concat();
        let Some(done) = in_group(mib * MIB, &pack) else {
            return;
        };
        assert!(!done.ok().stderr.contains("warning"));
        for command in [
            &["verify", "m.tar"][..],
            &["unpack", "m.tar", "out", "--force"],
        ] {
            let done = in_group(mib.min(160) * MIB, command).unwrap().ok();
            assert!(!done.stderr.contains("warning"), "{}", done.stderr);
        }
        for (number, part) in bytes.chunks(bytes.len() / 40 + 1).enumerate() {
            assert!(fs::read(scene.path(&format!("out/{number}.bin"))).unwrap() == part);
        }
    }
    // Gzip by others: passes over whole layers.
    support::write_archive(&scene.path("f.tar"), &[("f.bin", &bytes[..20 << 20])]);
    in_group(128 * MIB, &["verify", "f.tar"]).unwrap().ok();

    let pack = [&["pack", "model", "--chunk-size", "16MiB"], &name[..]].concat();
    let refused = in_group(100 * MIB, &pack).unwrap();
    let text = "the memory control group: has 100 MiB, packing needs ";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("; give it more, or ask for smaller chunks")
    );
    for (command, what) in [
        (&["verify", "m.tar"][..], "verifying"),
        (&["unpack", "m.tar", "other"], "unpacking"),
    ] {
        let refused = in_group(48 * MIB, command).unwrap();
        let text = format!("the memory control group: has 48 MiB, {what} needs ");
        refused.refused(5, &text);
    }
    let asked = in_group(160 * MIB, &["verify", "m.tar", "-j", "200"]).unwrap();
    assert!(
        asked.stderr.contains("on 200 threads, and may be killed"),
        "{}",
        asked.stderr
    );
}

/// The same in every packaging, with a small cache.
fn reads_in_little_memory(packaging: Packaging, chunk_size: &str, options: &[&str]) {
    let bytes = content(size(96 << 20, 400 << 20));
    let mut scene = Scene::empty(packaging);
    fs::create_dir(scene.path("model")).unwrap();
    fs::write(scene.path("model/weights.bin"), &bytes).unwrap();
    match packaging {
        Packaging::Foreign => {
            support::write_archive(&scene.path("m.tar"), &[("weights.bin", &bytes)]);
        }
        Packaging::Packed(_) => scene.pack(&["--chunk-size", chunk_size]),
    }
    drop(bytes);
    // What is mapped in pieces smaller than the kernel reads around a fault is read several times.
    // Of large chunks that is wanted: many are under way at once.
    let piece = match chunk_size {
        "16MiB" => size(2 * MIB, 512 << 10),
        _ => 4 * MIB,
    };
    read_in_little_memory(&scene, CACHE, piece, options);
}

fn threads_called(pid: i32, prefix: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// The server in a group of cache + 64 MiB; the readers in another, so small that the page cache
/// does not keep the file. Not in the same one: pages that the kernel reads ahead for a reader are
/// locked until they arrive, up to 16 MiB for each.
fn read_in_little_memory(scene: &Scene, cache: u64, piece: u64, options: &[&str]) {
    if !python_has("mmap") {
        return;
    }
    let Some(group) = Group::new(cache + 64 * MIB) else {
        return;
    };
    let Some(little) = Group::new(80 * MIB) else {
        return;
    };
    let mut command = group.command(BINARY);
    command
        .args(["mount", "m.tar", "mnt", "--cache-size", &cache.to_string()])
        .args(options);
    scene.settle(&mut command);
    // A machine of many processors has as much memory for a mount as any other.
    command.env("MODELOCI_TEST_CORES", "64");
    Run::of(&mut command).ok();
    let mount = Mounted(scene.path("mnt"));
    let pid = mount.pid();
    let mut readers: Vec<_> = (0..2)
        .map(|_| {
            let mut reader = little.command("python3");
            reader
                .args(["-c", READER])
                .arg(scene.path("model"))
                .arg(&mount.0)
                .arg(piece.to_string());
            reader.spawn().unwrap()
        })
        .collect();
    for reader in &mut readers {
        let end = reader.wait().unwrap();
        let packaging = scene.packaging;
        assert!(
            end.success(),
            "{packaging:?}, pieces of {piece}: {end}, {} killed",
            group.killed()
        );
    }
    let status = mount.status();
    assert_eq!(
        (&status["failures"], &status["panics"]),
        (&0.into(), &0.into())
    );
    assert_eq!((group.killed(), little.killed()), (0, 0));
    // With `--prefetch`, half of what the group may have.
    assert!(mount.count("prefetched_bytes") <= (cache + 64 * MIB) / 2);
    if let (Packaging::Packed(_), true) = (scene.packaging, piece > 2 * MIB) {
        // As many as there ever are, so that the pretence is one.
        assert_eq!(threads_called(mount.server(), "decode-"), 16);
    }
    assert!(lives(pid));
    kill(pid, libc::SIGTERM);
    until("the process ends", || !lives(pid));
}

/// The largest window that the zstd tool writes, while the cache is full of another file.
#[test]
fn r9_a_zstd_window_of_128_mib_in_the_promised_memory() {
    let scene = Scene::empty(Packaging::Foreign);
    fs::create_dir(scene.path("model")).unwrap();
    let mut layers = Vec::new();
    for (name, len, window_log) in [
        ("first.bin", 150 << 20, 20),
        ("later.bin", 200 << 20, limits::MAX_ZSTD_WINDOW_LOG),
    ] {
        let bytes = content(len);
        fs::write(scene.path("model").join(name), &bytes).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&tar.into_inner().unwrap()).unwrap();
        layers.push((name.to_string(), encoder.finish().unwrap()));
    }
    let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    support::write_layers(&scene.path("m.tar"), media_type, layers.into_iter());
    read_in_little_memory(&scene, 128 * MIB, 4 * MIB, &[]);
}

#[test]
fn r9_reads_and_maps_in_the_promised_memory() {
    for packaging in PACKAGINGS {
        reads_in_little_memory(packaging, "1MiB", &[]);
    }
}

/// Touches single pages of a mapping.
const TOUCHES: &str = "
import mmap, random, sys
path, touches = sys.argv[1], int(sys.argv[2])
places = random.Random(1)
with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as area:
    for _ in range(touches):
        area[places.randrange(len(area))]
";

/// Copies pieces of 300 KB out of one mapping, from many threads; compares with the original.
const COPIES: &str = "
import mmap, random, sys, threading
original, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
wrong = []
with open(original, 'rb') as one, open(path, 'rb') as other:
    one = mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ)
    other = mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ)
    def copy(number):
        places = random.Random(number)
        for _ in range(20):
            at = places.randrange(len(one) - 300_000)
            if one[at:at + 300_000] != other[at:at + 300_000]:
                wrong.append(at)
    all = [threading.Thread(target=copy, args=(n,)) for n in range(threads)]
    [t.start() for t in all]
    [t.join() for t in all]
assert not wrong, wrong
";

fn model_of(bytes: &[u8]) -> Scene {
    let mut scene = Scene::empty(Packaging::Packed("auto"));
    fs::create_dir(scene.path("model")).unwrap();
    fs::write(scene.path("model/weights.bin"), bytes).unwrap();
    scene.pack(&[]);
    scene
}

/// The kernel reads around a fault, as far as it reads ahead of streams.
#[test]
fn r20_a_lone_fault_costs_a_megabyte_at_most() {
    const TIMES: u64 = 20;
    let scene = model_of(&content(size(100 << 20, 400 << 20)));
    let mount = scene.mount(&[]);
    let before = mount.count("bytes_served");
    let mut touch = Command::new("python3");
    touch.args(["-c", TOUCHES]).arg(mount.path("weights.bin"));
    assert!(touch.arg(TIMES.to_string()).status().unwrap().success());
    let served = mount.count("bytes_served") - before;
    assert!(served <= TIMES * MIB, "{served}");
    mount.unmount();
}

/// Readers whose pages do not fit beside each other: each is read again and again, but not so much
/// around it that nobody gets on.
#[test]
fn r20_many_readers_of_a_mapping_get_on_in_a_small_group() {
    let scene = model_of(&content(size(160 << 20, 400 << 20)));
    let Some(group) = Group::new(100 * MIB) else {
        return;
    };
    let mount = scene.mount(&[]);
    let mut copies = group.command("timeout");
    copies.args(["300", "python3", "-c", COPIES]);
    copies.arg(scene.path("model/weights.bin"));
    copies.arg(mount.path("weights.bin")).arg("48");
    assert!(
        copies.status().unwrap().success(),
        "{} killed",
        group.killed()
    );
    mount.unmount();
}

#[test]
fn r9_the_largest_chunks_in_the_promised_memory() {
    for compression in ["auto", "gzip:6", "zstd"] {
        reads_in_little_memory(Packaging::Packed(compression), "16MiB", &[]);
    }
}

#[test]
fn r9_prefetch_in_the_promised_memory() {
    for packaging in [Packaging::Packed("auto"), Packaging::Foreign] {
        reads_in_little_memory(packaging, "1MiB", &["--prefetch"]);
    }
}
