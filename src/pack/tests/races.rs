//! Somebody else changes what is packed, or packs it, at the same time.
//!
//! A few runs each; `MODELOCI_TEST_LONG` makes it a thousand.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::CWD;

use super::*;
use crate::files::faults::{Fault, Op, Plan, Reach};
use crate::files::meanwhile::{exchange, rounds, while_exchanging, while_meddling};

/// On a kernel as this one is, and on one that lacks openat2(2).
const KERNELS: [&[Op]; 2] = [&[], &[Op::OpenBelow]];

fn lacking(lacks: &'static [Op]) -> std::sync::Arc<Plan> {
    Plan::new(Fault::Short, Reach::Once, usize::MAX, lacks)
}

const SECRET: &[u8] = b"TOP SECRET OF SOMEBODY ELSE";
/// As long as the secret: what takes its place is not found by its size.
const PUBLIC: &[u8; SECRET.len()] = b"what everybody may read now";

/// A model, a directory of the same names with secrets, and links from one to the other.
fn beside_secrets() -> (tempfile::TempDir, Vec<(PathBuf, PathBuf)>) {
    let dir = scratch(&[
        ("a/b/file", PUBLIC),
        ("a/b/more", PUBLIC),
        ("a/file", PUBLIC),
        ("file", PUBLIC),
    ]);
    let root = dir.path();
    for name in ["a/b/file", "a/b/more", "a/b/only", "a/file", "file"] {
        let path = root.join("secret").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, SECRET).unwrap();
    }
    let mut pairs = Vec::new();
    for (name, target) in [
        ("a", root.join("secret/a")),
        // Out by climbing: as many levels as it takes from wherever it stands.
        ("a/b", PathBuf::from("../../secret/a/b")),
        ("file", root.join("secret/file")),
    ] {
        let link = root.join(format!("link-{}", pairs.len()));
        symlink(target, &link).unwrap();
        pairs.push((model_of(&dir).join(name), link));
    }
    (dir, pairs)
}

/// Packs again and again, until both came of it often enough: an archive, which holds no secret, and
/// a refusal, which leaves nothing.
fn packs_no_secret(dir: &tempfile::TempDir, pairs: &[(PathBuf, PathBuf)]) {
    let options = PackOptions {
        compression: Compression::None,
        jobs: 1,
        ..options()
    };
    let before = listing(dir.path());
    for lacks in KERNELS {
        let (mut packed, mut refused) = (0, 0);
        let began = Instant::now();
        while_exchanging(pairs, || {
            while packed + refused < rounds(40) || packed.min(refused) < 5 {
                assert!(
                    began.elapsed() < Duration::from_secs(120),
                    "{packed} times packed, {refused} times refused"
                );
                match lacking(lacks).run(|| pack_in(dir.path(), &options)) {
                    Ok(_) => {
                        packed += 1;
                        let archive = fs::read(dir.path().join("out.tar")).unwrap();
                        assert!(!archive.windows(SECRET.len()).any(|w| w == SECRET));
                        fs::remove_file(dir.path().join("out.tar")).unwrap();
                    }
                    Err(error) => {
                        refused += 1;
                        assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}");
                    }
                }
                assert_eq!(listing(dir.path()), before);
            }
        });
    }
}

/// A repository takes turns with a link to a directory where a model of the same name is, and blobs of
/// somebody else: that one is no repository, whatever name leads there.
#[test]
fn k13_a_repository_is_exchanged_with_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for (place, bytes) in [("models--x", &PUBLIC[..]), ("theirs", SECRET)] {
        let snapshot = at(place).join("snapshots/rev");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(at(place).join("blobs")).unwrap();
        fs::write(at(place).join("blobs/b"), bytes).unwrap();
        symlink("../../blobs/b", snapshot.join("file")).unwrap();
    }
    symlink(at("theirs"), at("link")).unwrap();
    let model = at("models--x/snapshots/rev");
    let output = Output::File(at("out.tar"));
    let options = PackOptions {
        compression: Compression::None,
        jobs: 1,
        ..options()
    };
    // So short that it happens several times while the repository is looked for.
    let meddle = || exchange(&at("models--x"), &at("link"));
    while_meddling(8, meddle, || {
        let (mut packed, mut refused) = (0, 0);
        let began = Instant::now();
        while packed + refused < rounds(200) || packed.min(refused) < 5 {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "{packed} times packed, {refused} times refused"
            );
            match pack(&model, &config(), &output, &options, &|_, _| {}) {
                Ok(_) => {
                    packed += 1;
                    let archive = fs::read(at("out.tar")).unwrap();
                    let secret = archive.windows(SECRET.len()).any(|w| w == SECRET);
                    assert!(!secret, "after {} runs", packed + refused);
                    fs::remove_file(at("out.tar")).unwrap();
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}");
                }
            }
        }
    });
}

#[test]
fn k13_a_directory_is_exchanged_with_a_link() {
    let (dir, pairs) = beside_secrets();
    packs_no_secret(&dir, &pairs[..1]);
}

#[test]
fn k13_a_directory_below_is_exchanged_with_a_link() {
    let (dir, pairs) = beside_secrets();
    packs_no_secret(&dir, &pairs[1..2]);
}

#[test]
fn k13_a_file_is_exchanged_with_a_link() {
    let (dir, pairs) = beside_secrets();
    packs_no_secret(&dir, &pairs[2..]);
}

/// A link that leads inside, whose way is exchanged while it is followed.
#[test]
fn k13_what_a_link_leads_through_is_exchanged() {
    let (dir, pairs) = beside_secrets();
    let model = model_of(&dir);
    symlink("a/b/only", model.join("link")).unwrap();
    fs::write(model.join("a/b/only"), PUBLIC).unwrap();
    symlink(model.join("a/b"), model.join("z")).unwrap();
    packs_no_secret(&dir, &pairs[..1]);
}

/// Neither opening nor reading waits for a FIFO.
#[test]
fn k4_a_file_is_exchanged_with_a_fifo() {
    let (dir, _) = beside_secrets();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    packs_no_secret(&dir, &[(model_of(&dir).join("file"), fifo)]);
}

/// The model's directory is resolved once: all files are of one directory.
#[test]
fn k13_the_model_directory_itself_is_exchanged() {
    let dir = scratch(&[("a", b"one"), ("b", b"one")]);
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["a", "b"] {
        fs::write(other.join(name), b"two").unwrap();
    }
    let options = PackOptions {
        force: true,
        ..options()
    };
    while_exchanging(&[(model_of(&dir), other)], || {
        for _ in 0..rounds(40) {
            pack_in(dir.path(), &options).unwrap();
            let written = Written::read(&dir.path().join("out.tar"));
            let digest =
                |n: usize| written.layers()[n]["annotations"]["io.modeloci.file.digest"].clone();
            assert_eq!(digest(0), digest(1));
        }
    });
}

/// The output's directory is resolved once: the archive is in that one, whole, or nowhere.
#[test]
fn k13_the_directory_of_the_output_is_exchanged() {
    let dir = scratch(&[("a", b"one")]);
    let (out, other) = (dir.path().join("out"), dir.path().join("other"));
    let link = dir.path().join("link");
    fs::create_dir(&out).unwrap();
    fs::create_dir(&other).unwrap();
    symlink(&other, &link).unwrap();
    const NAMED: &[Op] = &[Op::OpenUnnamed];
    for lacks in [&[], NAMED] {
        let packed = while_exchanging(&[(out.clone(), link.clone())], || {
            let mut packed = Vec::new();
            for n in 0..rounds(40) {
                let name = format!("{n}.tar");
                let output = Output::File(out.join(&name));
                let pack = || pack(&model_of(&dir), &config(), &output, &options(), &|_, _| {});
                lacking(lacks).run(pack).unwrap();
                packed.push(name);
            }
            packed
        });
        // By their own names: either may be the link just now.
        let real = match out.is_symlink() {
            true => &link,
            false => &out,
        };
        let mut found: Vec<String> = [listing(real), listing(&other)].concat();
        found.sort();
        let mut packed = packed;
        packed.sort();
        assert_eq!(found, packed);
        for dir in [real, &other] {
            for name in listing(dir) {
                Written::read(&dir.join(&name));
                fs::remove_file(dir.join(name)).unwrap();
            }
        }
    }
}

/// An archive of one file, and files to add to it.
fn to_add(dir: &Path, count: usize) -> Vec<PathBuf> {
    let files = (0..count).map(|n| {
        let path = dir.join(format!("layer-{n}"));
        fs::write(&path, noise(n as u64, 1_000 + n)).unwrap();
        path
    });
    files.collect()
}

/// Adds all the files at once; what each run said.
fn add_at_once(archive: &Path, files: &[PathBuf], lacks: &'static [Op]) -> Vec<Result<Packed>> {
    let options = PackOptions {
        jobs: 1,
        ..options()
    };
    thread::scope(|scope| {
        let add = |file: &PathBuf| {
            let (file, options) = (file.clone(), options.clone());
            scope.spawn(move || lacking(lacks).run(|| add_layer(archive, &file, None, &options)))
        };
        let running: Vec<_> = files.iter().map(add).collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// Each layer whose run succeeded is there; returns how many did.
fn none_is_lost(archive: &Path, files: &[PathBuf], results: &[Result<Packed>]) -> usize {
    let written = Written::read(archive);
    let titles = written.titles();
    for (file, result) in files.iter().zip(results) {
        let title = file.file_name().unwrap().to_str().unwrap();
        match result {
            Ok(_) => assert!(titles.contains(&title), "{title} is lost: {titles:?}"),
            Err(error) => {
                assert_eq!(error.kind(), crate::ErrorKind::Refused, "{error}");
                assert!(error.to_string().contains("try again"), "{error}");
                assert!(
                    !titles.contains(&title),
                    "{title} was refused, and is there"
                );
            }
        }
    }
    results.iter().filter(|result| result.is_ok()).count()
}

#[test]
fn k15_layers_added_at_once() {
    for count in [2, 3] {
        let dir = scratch(&[("b", &noise(1, 100_000))]);
        let archive = dir.path().join("out.tar");
        pack_in(dir.path(), &options()).unwrap();
        let old = fs::read(&archive).unwrap();
        let files = to_add(dir.path(), count);
        let before = listing(dir.path());
        for _ in 0..rounds(20) {
            fs::write(&archive, &old).unwrap();
            let results = add_at_once(&archive, &files, &[]);
            // Each waits for the one before it.
            assert_eq!(none_is_lost(&archive, &files, &results), count);
            assert_eq!(listing(dir.path()), before);
        }
    }
}

/// Two at once where the file system has no locks at all: the exchange tells.
#[test]
fn k15_layers_added_at_once_without_locks() {
    let dir = scratch(&[("b", &noise(1, 100_000))]);
    let archive = dir.path().join("out.tar");
    pack_in(dir.path(), &options()).unwrap();
    let old = fs::read(&archive).unwrap();
    let files = to_add(dir.path(), 2);
    let before = listing(dir.path());
    for _ in 0..rounds(20) {
        fs::write(&archive, &old).unwrap();
        let results = add_at_once(&archive, &files, &[Op::Lock]);
        assert!(none_is_lost(&archive, &files, &results) > 0);
        assert_eq!(listing(dir.path()), before);
    }
}

/// `pack --force` and `add-layer` at once: as if one had come after the other.
#[test]
fn k15_a_layer_is_added_while_the_archive_is_packed_anew() {
    let dir = scratch(&[("b", &noise(1, 100_000))]);
    let archive = dir.path().join("out.tar");
    pack_in(dir.path(), &options()).unwrap();
    let old = fs::read(&archive).unwrap();
    fs::remove_file(model_of(&dir).join("b")).unwrap();
    fs::write(model_of(&dir).join("new"), noise(2, 90_000)).unwrap();
    let files = to_add(dir.path(), 1);
    let before = listing(dir.path());
    let force = PackOptions {
        force: true,
        ..options()
    };
    for lacks in [&[][..], &[Op::Lock], &[Op::OpenUnnamed]] {
        for _ in 0..rounds(20) {
            fs::write(&archive, &old).unwrap();
            let added = thread::scope(|scope| {
                scope.spawn(|| lacking(lacks).run(|| pack_in(dir.path(), &force)).unwrap());
                add_at_once(&archive, &files, lacks).remove(0)
            });
            let written = Written::read(&archive);
            match (added, written.titles().as_slice()) {
                // Added to the new one; added to the old one, and then replaced; or refused.
                (Ok(_), ["layer-0", "new"] | ["new"]) => {}
                (Err(error), ["new"]) => {
                    assert!(error.to_string().contains("try again"), "{error}");
                }
                (added, titles) => panic!("{added:?}: {titles:?}"),
            }
            assert_eq!(listing(dir.path()), before);
        }
    }
}

/// A lock that somebody else has is waited for, and that ends when it is interrupted.
#[test]
fn k15_a_lock_of_somebody_else_is_no_hang() {
    static CANCEL: AtomicBool = AtomicBool::new(false);
    let dir = scratch(&[("b", b"1")]);
    pack_in(dir.path(), &options()).unwrap();
    let archive = dir.path().join("out.tar");
    let old = fs::read(&archive).unwrap();
    let files = to_add(dir.path(), 1);
    let theirs = fs::File::open(&archive).unwrap();
    crate::files::calls::try_lock(&theirs).unwrap();
    let options = PackOptions {
        cancel: Some(&CANCEL),
        ..options()
    };
    let result = thread::scope(|scope| {
        let adding = scope.spawn(|| add_layer(&archive, &files[0], None, &options));
        thread::sleep(Duration::from_millis(100));
        assert!(!adding.is_finished(), "it waits");
        CANCEL.store(true, Ordering::Relaxed);
        adding.join().unwrap()
    });
    assert!(problem(result).ends_with("out.tar: interrupted"));
    assert!(fs::read(&archive).unwrap() == old);
    CANCEL.store(false, Ordering::Relaxed);
    drop(theirs);
    add_layer(&archive, &files[0], None, &options).unwrap();
}
