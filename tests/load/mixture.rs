//! r16: layers of every kind read at once, by many, in the memory that is promised: honest ones, of other
//! tools and of our own, and hostile ones beside them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Packaging, Run, Scene};
use crate::memory::{Group, MIB, content};
use crate::size;
use crate::support;
use crate::support::compressed::{gzip, gzip_of};
use crate::support::forge::{self, Header, Tar};
use crate::workspace::python_has;

/// Reads the same files from many threads at once, in order and anywhere, and compares with the
/// originals. Of a file whose name begins with `bad`, each piece is right or fails with EIO, and one does.
const MANY_READERS: &str = "
import errno, faulthandler, mmap, os, random, sys, threading
model, mount, readers, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names, bad, refused = sorted(os.listdir(model)), [], set()
faulthandler.dump_traceback_later(patience, exit=True)
def compare(file, other, at, length):
    if os.pread(file, length, at) != os.pread(other, length, at):
        bad.append((at, length))
def endure(name, file):
    at, end = 0, os.fstat(file).st_size
    while at < end + 1:
        # What fails in the middle of a read is told to the next one.
        try:
            other = os.open(os.path.join(mount, name), os.O_RDONLY)
            try:
                piece = os.pread(other, 1 << 19, at)
            finally:
                os.close(other)
        except OSError as error:
            if error.errno != errno.EIO:
                bad.append((name, at, error))
            refused.add(name)
            at += 1 << 19
            continue
        if piece != os.pread(file, len(piece), at):
            bad.append((name, at))
        at += len(piece) or 1 << 19
def read(number):
    name = names[number % len(names)]
    file = os.open(os.path.join(model, name), os.O_RDONLY)
    if name.startswith('bad'):
        return endure(name, file)
    direct = os.O_DIRECT if number % 4 == 3 else 0
    other = os.open(os.path.join(mount, name), os.O_RDONLY | direct)
    size, random_ = os.fstat(file).st_size, random.Random(number)
    try:
        if number < len(names) and not direct:
            for at in range(0, size, 1 << 20):
                compare(file, other, at, 1 << 20)
        elif direct:
            # Whole blocks into memory that is aligned, as the kernel wants it.
            buffer = mmap.mmap(-1, 1 << 20)
            for _ in range(30):
                at = random_.randrange(size) // 4096 * 4096
                found = os.preadv(other, [buffer], at)
                if buffer[:found] != os.pread(file, found, at):
                    bad.append((name, at, found))
        else:
            for _ in range(30):
                compare(file, other, random_.randrange(size), 1 << 18)
    except Exception as error:
        bad.append((name, error))
threads = [threading.Thread(target=read, args=(n,), name=names[n % len(names)]) for n in range(readers)]
[t.start() for t in threads]
for t in threads:
    t.join(patience)
assert not bad, bad[:5]
assert refused == {name for name in names if name.startswith('bad')}, refused
";

/// Where a server puts aside what it cannot keep: `$1` is the directory of the test.
#[derive(Debug, Clone, Copy)]
enum Spool {
    Disk,
    /// A file system that is memory.
    Tmpfs,
    /// There is no place, so it is a file without a file system.
    Memfd,
}

impl Spool {
    const ALL: [Spool; 3] = [Spool::Disk, Spool::Tmpfs, Spool::Memfd];

    /// Shell commands in a mount namespace.
    fn set_up(self) -> &'static str {
        match self {
            Spool::Disk => "",
            Spool::Tmpfs => "mount -t tmpfs t /var/tmp; mount -t tmpfs t \"$1/tmp\"",
            Spool::Memfd => "mount -t tmpfs -o ro t /var/tmp; mount -t tmpfs -o ro t \"$1/tmp\"",
        }
    }
}

/// A zstd frame with a window of 2 to the power of `log` bytes.
fn zstd(log: u32) -> impl Fn(&[u8]) -> Vec<u8> {
    move |bytes| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
}

fn tar_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    Tar::new().file(name, bytes).end()
}

type Pack = fn(&str, &[u8]) -> Vec<u8>;

/// Layers as other tools write them, whose readers want memory of every kind.
const HONEST: [(&str, Pack); 8] = [
    ("gzip-1.bin", |name, bytes| gzip(&tar_of(name, bytes), 1)),
    ("gzip-2.bin", |name, bytes| gzip(&tar_of(name, bytes), 1)),
    ("gzip-3.bin", |name, bytes| gzip(&tar_of(name, bytes), 1)),
    ("zstd-one.bin", |name, bytes| zstd(23)(&tar_of(name, bytes))),
    ("zstd-many.bin", |name, bytes| {
        let tar = tar_of(name, bytes);
        tar.chunks(3 << 20).flat_map(zstd(22)).collect()
    }),
    ("zstd-wide.bin", |name, bytes| {
        zstd(24)(&tar_of(name, bytes))
    }),
    ("plain.bin", tar_of),
    ("raw.bin", |_, bytes| bytes.to_vec()),
];

/// Layers whose digests are right, and what is in them is not.
const HOSTILE: [(&str, Pack); 4] = [
    // Some kilobytes that are much.
    ("bad-bomb.bin", |name, bytes| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(&tar_of(name, bytes)).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..size(128, 8 << 10) {
            encoder.write_all(&zeros).unwrap();
        }
        encoder.finish().unwrap()
    }),
    // A header that promises twice as much as there is.
    ("bad-header.bin", |name, bytes| {
        let header = Header::file(name, 2 * bytes.len() as u64);
        gzip(&[&header.seal(), bytes].concat(), 1)
    }),
    ("bad-members.bin", |name, bytes| {
        let directories = Header::file("d/", 0).kind(b'5').seal().repeat(16_384);
        let more = gzip_of(1, |out| out.write_all(&directories).unwrap());
        [gzip(&Tar::new().file(name, bytes).0, 1), more.repeat(500)].concat()
    }),
    ("bad-frames.bin", |name, bytes| {
        let empty = zstd::encode_all(&b""[..], 1).unwrap();
        [zstd(20)(&tar_of(name, bytes)), empty.repeat(70_000)].concat()
    }),
];

/// Layers with chunk tables. Of the last one, a chunk is damaged.
const PACKED: [(&str, &[&str]); 4] = [
    ("packed-auto.bin", &["--compression", "auto"]),
    (
        "packed-zstd.bin",
        &["--compression", "zstd", "--chunk-size", "4MiB"],
    ),
    ("packed-none.bin", &["--compression", "none"]),
    ("bad-chunk.bin", &["--compression", "zstd"]),
];

/// An archive of all of them, `m.tar`, and their files in `model`.
fn mixture(scene: &Scene, len: usize) {
    let model = scene.path("model");
    fs::create_dir(&model).unwrap();
    let original = |number: usize, name: &str| {
        let mut bytes = content(len + number * 4097);
        bytes.rotate_left(number * 10_007);
        fs::write(model.join(name), &bytes).unwrap();
        bytes
    };
    for (number, (name, options)) in PACKED.into_iter().enumerate() {
        let bytes = original(number, name);
        let path = format!("model/{name}");
        match number {
            0 => {
                fs::create_dir(scene.path("start")).unwrap();
                fs::write(scene.path("start").join(name), bytes).unwrap();
                let pack = [
                    "pack",
                    "start",
                    "--name",
                    "m",
                    "--version",
                    "1",
                    "-o",
                    "p.tar",
                ];
                scene.run(&[&pack, options].concat()).ok();
            }
            _ => drop(
                scene
                    .run(&[&["add-layer", "p.tar", &path], options].concat())
                    .ok(),
            ),
        }
    }
    let others = HONEST.iter().chain(&HOSTILE).enumerate();
    let others = others.map(|(number, (name, pack))| {
        let bytes = original(PACKED.len() + number, name);
        (name.to_string(), pack(name, &bytes))
    });
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    support::write_layers(&scene.path("f.tar"), media_type, others);
    let [packed, others] = ["p.tar", "f.tar"].map(|name| scene.path(name));
    let damaged = join(&packed, &others, &scene.path("m.tar"));
    let file = File::options()
        .read(true)
        .write(true)
        .open(scene.path("m.tar"))
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, damaged).unwrap();
    file.write_all_at(&[!byte[0]], damaged).unwrap();
}

/// Writes the model of one archive with the layers of another one as well. Returns where the middle of the
/// one that is to be damaged is.
fn join(one: &Path, other: &Path, out: &Path) -> u64 {
    let [(old, mut manifest), (left_out, mut more)] = [one, other].map(manifest);
    let layers = manifest["layers"].as_array_mut().unwrap();
    let mut found = layers.iter();
    let found = found.find(|layer| {
        layer["annotations"]
            .to_string()
            .contains("\"bad-chunk.bin\"")
    });
    let bad = blob_name(found.unwrap());
    layers.append(more["layers"].as_array_mut().unwrap());
    let mut archive = tar::Builder::new(File::create(out).unwrap());
    let (mut written, mut middle) = (BTreeSet::from([old, left_out]), None);
    for path in [one, other] {
        for entry in tar::Archive::new(File::open(path).unwrap())
            .entries()
            .unwrap()
        {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_string();
            if !name.starts_with("blobs/sha256/") || !written.insert(name.clone()) {
                continue;
            }
            if name == bad {
                let start = archive.get_mut().stream_position().unwrap() + 512;
                middle = Some(start + entry.size() / 2);
            }
            let header = entry.header().clone();
            archive.append(&header, entry).unwrap();
        }
    }
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let descriptor = forge::descriptor(forge::MANIFEST, &manifest);
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    let rest = Tar::new()
        .file(forge::blob_name(&manifest), &manifest)
        .file("index.json", &serde_json::to_vec(&index).unwrap())
        .file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}");
    archive.get_mut().write_all(&rest.end()).unwrap();
    middle.unwrap()
}

/// The manifest of an archive, and the name of its entry.
fn manifest(archive: &Path) -> (String, Value) {
    let json = |name: &str| -> Value {
        let mut archive = tar::Archive::new(File::open(archive).unwrap());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let entry = entries.find(|entry| entry.path().unwrap() == Path::new(name));
        serde_json::from_reader(entry.unwrap()).unwrap()
    };
    let name = blob_name(&json("index.json")["manifests"][0]);
    let manifest = json(&name);
    (name, manifest)
}

/// The name of the entry that a descriptor means.
fn blob_name(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap();
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Mounts in a control group, reads outside of it. Where it puts things aside is a matter of the mount
/// namespace in which all of it happens.
const SESSION: &str = r#"
group=$3 cache=$4 threads=$5 reader=$6
sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$group" \
    "$2" mount m.tar mnt --no-index --cache-size "$cache" -o "threads=$threads"
python3 -c "$reader" model mnt 64 "$7" || end=$?
"$2" status mnt --json
until "$2" umount mnt; do sleep 0.1; done
exit ${end:-0}
"#;

/// The server alone in a group of exactly what is promised.
#[test]
fn r16_a_mixture_of_layers_in_the_promised_memory() {
    if !python_has("mmap") {
        return;
    }
    const PATIENCE: Duration = Duration::from_secs(240);
    let scene = Scene::empty(Packaging::Foreign);
    mixture(&scene, size(8 << 20, 96 << 20));
    let some = [(16, 2), (16, 64), (64, 8)].into_iter().zip(Spool::ALL);
    let all = [16, 64, 256].map(|cache| [2, 8, 64].map(|threads| (cache, threads)));
    let all = all.concat().into_iter();
    let all = all.flat_map(|sizes| Spool::ALL.map(|spool| (sizes, spool)));
    for ((cache, threads), spool) in size(some.collect::<Vec<_>>(), all.collect()) {
        let what = format!("{cache} MiB, {threads} threads, {spool:?}");
        let Some(group) = Group::new((cache + 64) * MIB) else {
            return;
        };
        let script = format!("set -e\n{}\n{SESSION}", spool.set_up());
        let script = format!(
            "exec unshare --mount --propagation private sh -c '{}' sh \"$@\"",
            script.replace('\'', r"'\''")
        );
        let patience = (PATIENCE - Duration::from_secs(40)).as_secs().to_string();
        let [cache, threads] = [format!("{cache}MiB"), threads.to_string()];
        let given = [&cache, &threads, MANY_READERS, &patience].map(OsStr::new);
        let given = [&[group.path().as_os_str()], &given[..]].concat();
        let mut session = scene.script(&script, &given);
        session.env("MODELOCI_TEST_CORES", &threads);
        let done = Run::within(PATIENCE, &mut session);
        assert_eq!(group.killed(), 0, "{what}: {}", done.stderr);
        assert_eq!(done.code, Some(0), "{what}: {}", done.stderr);
        assert_eq!(done.json()["panics"], 0, "{what}");
    }
}
