//! Names that commands are given, or that stand above these, exchanged all the while by whoever may write
//! there. What was opened is held: a run is about one thing from its beginning to its end, it is refused, or
//! it ends with an error; and nothing else is read or touched.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use modeloci::Model;
use modeloci::model::OpenOptions;
use modeloci_test_support::opened::Opened;

use crate::forge::{Layout, noise};
use crate::meanwhile::{exchange, race, while_exchanging_slowly, while_meddling};
use crate::sandbox::{Run, Sandbox, assert_tree, names};

/// What came of a run of a race.
fn came_of(run: &Run) -> &'static str {
    match run.code {
        Some(0) => "done",
        _ => "refused",
    }
}

/// Two names that take turns. The inode is that of the first, which it has again after every race.
struct Pair([(PathBuf, PathBuf); 1], u64);

impl Pair {
    fn of(a: PathBuf, b: PathBuf) -> Pair {
        let inode = a.symlink_metadata().unwrap().ino();
        Pair([(a, b)], inode)
    }

    /// Does `work` while they are exchanged, and puts them back.
    fn while_exchanging<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = while_exchanging_slowly(&self.0, work);
        let [(a, b)] = &self.0;
        if a.symlink_metadata().unwrap().ino() != self.1 {
            exchange(a, b);
        }
        done
    }
}

/// A directory that is held, whatever its name is just now.
struct Place(File);

impl Place {
    fn of(dir: &Path) -> Place {
        Place(File::open(dir).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.0.as_raw_fd().to_string())
            .join(name)
    }
}

/// Two directories of the same names; `here` is to take turns with a link to `there`.
fn two_places(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    for (n, place) in ["here", "there"].into_iter().enumerate() {
        let seed = n as u64 + 1;
        sandbox.tree(
            &format!("model-{n}"),
            &[("a", noise(seed, 90_000)), ("b", noise(seed + 10, 90_000))],
        );
        sandbox.mkdir(place);
        let (model, archive) = (format!("model-{n}"), format!("{place}/m.tar"));
        let args = [
            "pack",
            &model,
            "--name",
            "m",
            "--version",
            "1",
            "-o",
            &archive,
        ];
        sandbox.run(&args).ok();
    }
    let (here, link) = (sandbox.path("here"), sandbox.path("link"));
    symlink("there", &link).unwrap();
    (here, link)
}

/// An archive, as it is before and after a command.
struct Archive {
    place: Place,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Archive {
    /// Finds out what the command makes of the archive in a directory, and puts the old one back.
    fn of(sandbox: &Sandbox, dir: &str, command: impl Fn() -> Run) -> Archive {
        let place = Place::of(&sandbox.path(dir));
        let old = fs::read(place.path("m.tar")).unwrap();
        command().ok();
        let new = fs::read(place.path("m.tar")).unwrap();
        assert!(new != old);
        fs::write(place.path("m.tar"), &old).unwrap();
        Archive { place, old, new }
    }

    /// True when it was changed, which it is as a whole, or not at all; it is as before then.
    fn was_changed(&self) -> bool {
        assert_eq!(names(&self.place.path("")), ["m.tar"]);
        let found = fs::read(self.place.path("m.tar")).unwrap();
        assert!(
            found == self.old || found == self.new,
            "neither old nor new"
        );
        fs::write(self.place.path("m.tar"), &self.old).unwrap();
        found == self.new
    }
}

/// The arguments with `HERE` replaced.
fn on<'a>(args: &[&'a str], archive: &'a str) -> Vec<&'a str> {
    let named = args.iter().map(|arg| match *arg {
        "HERE" => archive,
        arg => arg,
    });
    named.collect()
}

/// One archive of two is changed, wholly, or none of them is.
fn changes_one_archive(args: &[&str]) {
    let sandbox = Sandbox::new();
    let (here, link) = two_places(&sandbox);
    sandbox.write("extra", noise(5, 120_000));
    let archives = [("here", "here/m.tar"), ("there", "there/m.tar")]
        .map(|(dir, archive)| Archive::of(&sandbox, dir, || sandbox.run(&on(args, archive))));
    let args = on(args, "here/m.tar");
    while_exchanging_slowly(&[(here, link)], || {
        race(10, &["here", "there"], |_| {
            let run = sandbox.run(&args).sober();
            let changed = archives.each_ref().map(Archive::was_changed);
            let count = changed.iter().filter(|changed| **changed).count();
            assert_eq!(count, usize::from(run.code == Some(0)), "{run:?}");
            match changed {
                [true, _] => "here",
                [_, true] => "there",
                _ => {
                    run.fails(1, &["m.tar"]);
                    "nowhere"
                }
            }
        })
    });
}

#[test]
fn k15_the_directory_of_an_archive_is_exchanged_while_a_layer_is_added() {
    changes_one_archive(&["add-layer", "HERE", "extra"]);
}

#[test]
fn k25_the_directory_of_an_archive_is_exchanged_while_a_layer_is_replaced() {
    changes_one_archive(&["add-layer", "--replace", "HERE", "extra", "--path", "b"]);
}

#[test]
fn k25_the_directory_of_an_archive_is_exchanged_while_a_layer_is_removed() {
    changes_one_archive(&["remove-layer", "HERE", "b"]);
}

/// The archive itself takes turns with a link to another one: none is lost, whoever has which name then.
#[test]
fn k25_an_archive_is_exchanged_with_a_link_to_another_while_a_layer_of_it_goes() {
    let sandbox = Sandbox::new();
    two_places(&sandbox);
    let other = sandbox.path("other.tar");
    symlink("../there/m.tar", sandbox.path("here/link")).unwrap();
    let old = ["here/m.tar", "there/m.tar"].map(|name| fs::read(sandbox.path(name)).unwrap());
    let new = ["here", "there"].map(|dir| {
        fs::copy(sandbox.path(dir).join("m.tar"), &other).unwrap();
        sandbox.run(&["remove-layer", "other.tar", "b"]).ok();
        fs::read(&other).unwrap()
    });
    let pair = [(sandbox.path("here/m.tar"), sandbox.path("here/link"))];
    race(10, &["done"], |_| {
        let run = while_exchanging_slowly(&pair, || {
            sandbox.run(&["remove-layer", "here/m.tar", "b"]).sober()
        });
        let mut found = Vec::new();
        for dir in ["here", "there"] {
            for name in names(&sandbox.path(dir)) {
                let path = sandbox.path(dir).join(name);
                if path.symlink_metadata().unwrap().is_file() {
                    found.push(fs::read(path).unwrap());
                }
            }
        }
        let is_there = |bytes: &Vec<u8>| found.contains(bytes);
        for n in 0..2 {
            assert!(
                is_there(&old[n]) || is_there(&new[n]),
                "{n} is lost: {run:?}"
            );
        }
        if run.code == Some(0) {
            assert!(new.iter().any(is_there), "{run:?}");
        }
        for dir in ["here", "there"] {
            fs::remove_dir_all(sandbox.path(dir)).unwrap();
            sandbox.mkdir(dir);
        }
        fs::write(sandbox.path("here/m.tar"), &old[0]).unwrap();
        fs::write(sandbox.path("there/m.tar"), &old[1]).unwrap();
        symlink("../there/m.tar", &pair[0].1).unwrap();
        came_of(&run)
    });
}

/// What is added takes turns with something else: one of them is added, wholly, or the archive is as before.
#[test]
fn k1_a_file_is_exchanged_while_it_is_added() {
    let sandbox = Sandbox::new();
    two_places(&sandbox);
    let contents = [noise(31, 400_000), noise(32, 400_000)];
    sandbox.write("given/file", &contents[0]);
    sandbox.write("others/file", &contents[1]);
    symlink("../others/file", sandbox.path("given/link")).unwrap();
    symlink("others", sandbox.path("others-link")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = sandbox.path("given/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let old = fs::read(sandbox.path("here/m.tar")).unwrap();
    for (a, b) in [
        ("given/file", "given/link"),
        ("given", "others-link"),
        ("given/file", "given/fifo"),
    ] {
        let pair = Pair::of(sandbox.path(a), sandbox.path(b));
        race(6, &["done"], |round| {
            let more: &[&str] = match round % 2 {
                0 => &["--path", "new"],
                _ => &["--path", "b", "--replace"],
            };
            let args = [&["add-layer", "here/m.tar", "given/file"], more].concat();
            let run = pair.while_exchanging(|| sandbox.run(&args).sober());
            assert_eq!(names(&sandbox.path("here")), ["m.tar"]);
            if run.code == Some(0) {
                let added = sandbox.run(&["cat", "here/m.tar", more[1]]).ok().stdout;
                assert!(contents.contains(&added), "of two files");
                fs::write(sandbox.path("here/m.tar"), &old).unwrap();
                return "done";
            }
            assert!(matches!(run.code, Some(1 | 5)), "{run:?}");
            run.one_error(&["given/file"]);
            assert!(fs::read(sandbox.path("here/m.tar")).unwrap() == old);
            "refused"
        });
    }
}

/// What is read is one archive, whatever has its name before and after.
#[test]
fn r2_an_archive_is_exchanged_while_it_is_inspected_and_verified() {
    let sandbox = Sandbox::new();
    let (here, link) = two_places(&sandbox);
    fs::copy(sandbox.path("there/m.tar"), sandbox.path("here/n.tar")).unwrap();
    symlink("../there/m.tar", sandbox.path("here/link")).unwrap();
    let archive = sandbox.path("here/m.tar");
    let pairs = [
        Pair::of(here, link),
        Pair::of(archive.clone(), sandbox.path("here/n.tar")),
        Pair::of(archive.clone(), sandbox.path("here/link")),
    ];
    for args in [
        &["inspect", "here/m.tar", "--json"][..],
        &["verify", "here/m.tar", "--json"],
        &["ls", "here/m.tar", "--json"],
        &["cat", "here/m.tar", "b"],
    ] {
        let expected = [0, 1].map(|_| {
            exchange(&archive, &sandbox.path("here/n.tar"));
            sandbox.run(args).ok().stdout
        });
        assert!(expected[0] != expected[1]);
        for pair in &pairs {
            pair.while_exchanging(|| {
                race(2, &["one", "the other"], |_| {
                    let run = sandbox.run(args).sober();
                    if run.code != Some(0) {
                        assert!(run.stdout.is_empty(), "{run:?}");
                        run.one_error(&["m.tar"]);
                        return "none";
                    }
                    let which = expected.iter().position(|bytes| *bytes == run.stdout);
                    match which.unwrap_or_else(|| panic!("of two archives: {run:?}")) {
                        0 => "one",
                        _ => "the other",
                    }
                })
            });
        }
    }
}

/// A layout directory of more files than are kept open, and all of it once more outside.
struct LayoutDirectory {
    sandbox: Sandbox,
    files: Vec<(String, Vec<u8>)>,
    /// What takes turns: a part of it with a link to the same outside.
    pairs: Vec<Pair>,
    outside: Vec<PathBuf>,
}

impl LayoutDirectory {
    fn new() -> LayoutDirectory {
        let sandbox = Sandbox::new();
        let files: Vec<_> = (0..12)
            .map(|n| (format!("d/f{n:02}"), noise(n + 50, 20_000)))
            .collect();
        let layout = Layout::of(
            files
                .iter()
                .map(|(name, bytes)| (name.as_str(), &bytes[..])),
        );
        let mut outside = Vec::new();
        for (name, bytes) in &layout.entries {
            sandbox.write(&format!("layout/{name}"), bytes);
            outside.push(sandbox.write(&format!("outside/{name}"), bytes));
        }
        let blob = layout.layer_name(3);
        let parts = ["blobs", "blobs/sha256", "index.json", &blob];
        let pair = |(n, part): (usize, &&str)| {
            let link = sandbox.path(format!("link-{n}"));
            symlink(sandbox.path("outside").join(part), &link).unwrap();
            Pair::of(sandbox.path("layout").join(part), link)
        };
        let pairs = parts.iter().enumerate().map(pair).collect();
        LayoutDirectory {
            files,
            pairs,
            outside,
            sandbox,
        }
    }
}

/// Nothing outside of a layout directory is read, though all is there that would be accepted.
#[test]
fn t8_parts_of_a_layout_directory_are_exchanged_with_links_while_it_is_read() {
    let layout = LayoutDirectory::new();
    let sandbox = &layout.sandbox;
    let opened = Opened::of(&layout.outside);
    let borrowed: Vec<_> = layout
        .files
        .iter()
        .map(|(n, b)| (n.as_str(), b.clone()))
        .collect();
    for args in [
        &["unpack", "layout", "out", "-j", "2"][..],
        &["verify", "layout", "--json"],
        &["cat", "layout", "d/f03"],
    ] {
        let expected = sandbox.run(args).ok().stdout;
        let _ = fs::remove_dir_all(sandbox.path("out"));
        race(8, &["done", "refused"], |round| {
            let pair = &layout.pairs[round % layout.pairs.len()];
            let run = pair.while_exchanging(|| sandbox.run(args).sober());
            assert!(!opened.any(), "read outside: {run:?}");
            let out = sandbox.path("out");
            if run.code == Some(0) {
                assert!(run.stdout == expected, "{run:?}");
                if args[0] == "unpack" {
                    assert_tree(&out, &borrowed);
                    fs::remove_dir_all(&out).unwrap();
                }
            } else {
                assert!(matches!(run.code, Some(1 | 3)), "{run:?}");
                assert!(!out.exists());
            }
            came_of(&run)
        });
    }
}

/// The same while files are read of a model that stays open: blobs are opened when they are needed.
#[test]
fn t8_parts_of_a_layout_directory_are_exchanged_with_links_while_a_model_is_open() {
    let layout = LayoutDirectory::new();
    let opened = Opened::of(&layout.outside);
    let options = OpenOptions {
        cache_bytes: 0,
        ..OpenOptions::default()
    };
    race(30, &["some are read"], |round| {
        // Opening has read the index, for the last time.
        let Pair([(part, link)], _) = &layout.pairs[[0, 1, 3][round % 3]];
        let model = Model::open(layout.sandbox.path("layout"), &options).unwrap();
        let [mut done, mut refused] = [0; 2];
        let mut read = || {
            for (name, bytes) in &layout.files {
                match model.read_at(model.find(name).unwrap().inode, 0, bytes.len()) {
                    Ok(read) => {
                        assert!(read == bytes[..], "{name}");
                        done += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        };
        let meddle = || exchange(part, link);
        while_meddling(8, meddle, || {
            read();
            read();
        });
        assert!(!opened.any(), "read outside");
        if part.is_symlink() {
            exchange(part, link);
        }
        match (done, refused) {
            (_, 0) => "all are read",
            (0, _) => "none is read",
            _ => "some are read",
        }
    });
}

/// A blob takes turns with a file of other bytes: they are in no file that is unpacked.
#[test]
fn d3_blobs_of_a_layout_directory_are_exchanged_while_they_are_unpacked() {
    let layout = LayoutDirectory::new();
    let sandbox = &layout.sandbox;
    let borrowed: Vec<_> = layout
        .files
        .iter()
        .map(|(n, b)| (n.as_str(), b.clone()))
        .collect();
    let Pair([(blob, link)], _) = &layout.pairs[3];
    fs::remove_file(link).unwrap();
    let mut other = fs::read(blob).unwrap();
    let middle = other.len() / 2;
    other[middle..].reverse();
    fs::write(link, other).unwrap();
    race(6, &["done", "refused"], |_| {
        let unpack = || sandbox.run(&["unpack", "layout", "out"]).sober();
        let run = layout.pairs[3].while_exchanging(unpack);
        if run.code == Some(0) {
            assert_tree(&sandbox.path("out"), &borrowed);
            fs::remove_dir_all(sandbox.path("out")).unwrap();
            return "done";
        }
        run.fails(1, &["d/f03"]);
        assert!(!sandbox.path("out").exists());
        "refused"
    });
}

/// Directories above the output that `unpack` makes are exchanged with links as soon as they are there.
#[test]
fn u1_parents_that_are_made_are_exchanged_with_links() {
    let sandbox = Sandbox::new();
    let files: Vec<_> = (0..8)
        .map(|n| (format!("d{n}/file"), noise(n + 1, 2_000)))
        .collect();
    let borrowed: Vec<_> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let layout = Layout::of(files.iter().map(|(n, b)| (n.as_str(), &b[..])));
    sandbox.write("m.tar", layout.to_bytes());
    let outside = sandbox.mkdir("outside");
    let root = sandbox.path("around");
    race(12, &["done"], |round| {
        fs::create_dir(&root).unwrap();
        let link = root.join("link");
        symlink(&outside, &link).unwrap();
        let made = root.join(["made", "made/deep"][round % 2]);
        let meddle = || exchange(&made, &link);
        let run = while_meddling(11, meddle, || {
            sandbox
                .run(&["unpack", "m.tar", "around/made/deep/out"])
                .sober()
        });
        assert_eq!(names(&outside), [""; 0], "written outside: {run:?}");
        if run.code == Some(0) {
            // Where it was moved to, under whatever name.
            let found: Vec<_> = outputs(&root).collect();
            assert_eq!(found.len(), 1, "{run:?}");
            assert_tree(&found[0], &borrowed);
        } else {
            assert!(matches!(run.code, Some(1 | 5)), "{run:?}");
            assert_eq!(outputs(&root).count(), 0, "{run:?}");
        }
        fs::remove_dir_all(&root).unwrap();
        came_of(&run)
    });
}

/// All directories below that are called `out`; links are not followed.
fn outputs(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for name in names(&dir) {
            let path = dir.join(&name);
            match path.symlink_metadata().unwrap().is_dir() {
                true if name == "out" => found.push(path),
                true => dirs.push(path),
                false => {}
            }
        }
    }
    found.into_iter()
}

/// What is there of the way to the output takes turns with a link: all of the tree is in one place.
#[test]
fn u1_the_directory_of_the_output_is_exchanged() {
    let sandbox = Sandbox::new();
    let files: Vec<_> = (0..8)
        .map(|n| (format!("d{n}/file"), noise(n + 1, 2_000)))
        .collect();
    let borrowed: Vec<_> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let layout = Layout::of(files.iter().map(|(n, b)| (n.as_str(), &b[..])));
    sandbox.write("m.tar", layout.to_bytes());
    let places = ["here", "there"].map(|name| Place::of(&sandbox.mkdir(name)));
    symlink("there", sandbox.path("link")).unwrap();
    let pair = (sandbox.path("here"), sandbox.path("link"));
    while_exchanging_slowly(&[pair], || {
        race(20, &["here", "there"], |round| {
            let output = ["here/out", "here/new/deep/out"][round % 2];
            sandbox.run(&["unpack", "m.tar", output]).ok();
            let below = |place: &Place| outputs(&place.path("")).collect::<Vec<_>>();
            let found = places.each_ref().map(below);
            let (of, came) = match found.each_ref().map(Vec::len) {
                [1, 0] => (0, "here"),
                [0, 1] => (1, "there"),
                _ => panic!("not in one place: {found:?}"),
            };
            assert_tree(&found[of][0], &borrowed);
            for name in names(&places[of].path("")) {
                fs::remove_dir_all(places[of].path(&name)).unwrap();
            }
            assert!(places.iter().all(|place| names(&place.path("")).is_empty()));
            came
        })
    });
}
