//! r16: layers of every kind read at once, by many, in the memory that is promised.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use crate::harness::{BINARY, Mounted, Packaging, Run, Scene, kill, lives, until};
use crate::memory::{Group, MIB, content};
use crate::size;
use crate::support;
use crate::support::compressed::gzip;
use crate::workspace::python_has;

/// Reads the same files from many threads at once, in order and anywhere, and compares with the
/// originals.
const MANY_READERS: &str = "
import os, random, sys, threading
model, mount, readers = sys.argv[1], sys.argv[2], int(sys.argv[3])
names, bad = sorted(os.listdir(model)), []
def compare(file, other, at, length):
    if os.pread(file, length, at) != os.pread(other, length, at):
        bad.append((at, length))
def read(number):
    name = names[number % len(names)]
    file = os.open(os.path.join(model, name), os.O_RDONLY)
    direct = os.O_DIRECT if number % 4 == 3 else 0
    other = os.open(os.path.join(mount, name), os.O_RDONLY | direct)
    size, random_ = os.fstat(file).st_size, random.Random(number)
    try:
        if number < len(names):
            for at in range(0, size, 1 << 20):
                compare(file, other, at, 1 << 20)
        elif direct:
            # Whole blocks into memory that is aligned, as the kernel wants it.
            import mmap
            buffer = mmap.mmap(-1, 1 << 20)
            for _ in range(30):
                at = random_.randrange(size) // 4096 * 4096
                found = os.preadv(other, [buffer], at)
                if buffer[:found] != os.pread(file, found, at):
                    bad.append((at, found))
        else:
            for _ in range(30):
                compare(file, other, random_.randrange(size), 1 << 18)
    except Exception as error:
        bad.append((name, error))
threads = [threading.Thread(target=read, args=(n,)) for n in range(readers)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not bad, bad[:5]
";

/// Layers whose readers want memory of every kind: gzip, zstd in one frame and in many, and with
/// large windows.
fn mixture(scene: &Scene, len: usize) {
    let window = |log: u32| {
        move |tar: &[u8]| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
    };
    let gzip = |tar: &[u8]| gzip(tar, 1);
    let frames = |tar: &[u8]| tar.chunks(3 << 20).flat_map(window(22)).collect();
    type Pack<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
    let kinds: [(&str, Pack<'_>); 6] = [
        ("gzip-1.bin", Box::new(gzip)),
        ("gzip-2.bin", Box::new(gzip)),
        ("gzip-3.bin", Box::new(gzip)),
        ("zstd-one.bin", Box::new(window(23))),
        ("zstd-many.bin", Box::new(frames)),
        ("zstd-wide.bin", Box::new(window(24))),
    ];
    fs::create_dir(scene.path("model")).unwrap();
    let layers = kinds.iter().enumerate().map(|(number, (name, pack))| {
        let mut bytes = content(len + number * 4097);
        bytes.rotate_left(number * 10_007);
        fs::write(scene.path("model").join(name), &bytes).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
        (name.to_string(), pack(&tar.into_inner().unwrap()))
    });
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    support::write_layers(&scene.path("m.tar"), media_type, layers);
}

/// The server alone in a group of exactly what is promised.
#[test]
fn r16_a_mixture_of_layers_in_the_promised_memory() {
    if !python_has("mmap") {
        return;
    }
    let scene = Scene::empty(Packaging::Foreign);
    mixture(&scene, size(24 << 20, 96 << 20));
    let some = [(16, 2), (16, 64), (64, 8)];
    let all = [16, 64, 256].map(|cache| [2, 8, 64].map(|threads| (cache, threads)));
    for (cache, threads) in size(some.to_vec(), all.concat()) {
        let Some(group) = Group::new((cache + 64) * MIB) else {
            return;
        };
        let mut command = group.command(BINARY);
        let (cache, loops) = (format!("{cache}MiB"), format!("threads={threads}"));
        command
            .args([
                "mount",
                "m.tar",
                "mnt",
                "--no-index",
                "--cache-size",
                &cache,
            ])
            .args(["-o", &loops]);
        scene.settle(&mut command);
        command.env("MODELOCI_TEST_CORES", threads.to_string());
        Run::of(&mut command).ok();
        let mount = Mounted(scene.path("mnt"));
        let pid = mount.pid();
        let mut reader = Command::new("python3");
        reader
            .args(["-c", MANY_READERS])
            .arg(scene.path("model"))
            .arg(&mount.0)
            .arg("64");
        let end = reader.status().unwrap();
        assert!(end.success(), "{cache}, {loops}: {} killed", group.killed());
        assert_eq!(group.killed(), 0);
        assert_eq!(mount.status()["failures"], 0);
        kill(pid, libc::SIGTERM);
        until("the process ends", || !lives(pid));
    }
}
