//! l: the streams inside layers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use modeloci::layer::table::Framing;
use modeloci::layer::wrap;
use modeloci::model::OpenOptions;
use modeloci::{Algorithm, Digest, ErrorKind, Model};
use serde_json::{Value, json};

use crate::compressed;
use crate::forge::{BLOCK, Header, Layout, Random, Tar, digest, gzip, layer, noise, record};
use crate::mounted::Mounted;
use crate::packing;
use crate::plain;
use crate::sandbox::Sandbox;

pub(crate) const GOOD: &str = "good.bin";

pub(crate) fn good() -> Vec<u8> {
    noise(7, 3000)
}

/// A file of two kinds of content, in a tar.
pub(crate) fn content() -> Vec<u8> {
    [noise(8, 40_000), b"weights ".repeat(5_000)].concat()
}

pub(crate) fn tar() -> Vec<u8> {
    Tar::new().file("bad.bin", &content()).end()
}

/// A model of a file that is in order and one whose layer is `blob`, under its true digest.
pub(crate) fn beside(blob: Vec<u8>) -> Layout {
    Layout::of_layers([("bad.bin", blob), (GOOD, layer(GOOD, &good()))])
}

/// The layer's digest is true, its content is not acceptable: `inspect` and `unpack` name it, a
/// mount serves EIO for it and everything else for real. Where the layer's own first bytes, which
/// tell the size of its file, cannot be read, the archive may be refused as a whole.
#[track_caller]
pub(crate) fn damaged(what: &str, layout: &Layout) {
    let sandbox = Sandbox::new();
    sandbox.write("bad.tar", layout.to_bytes());
    let digest = layout.layer_digest(0);
    let words = ["bad.bin", &digest[..]];

    let run = sandbox.run_bounded(&["inspect", "bad.tar"]).sober();
    assert!(matches!(run.code, Some(1 | 3)), "{what}: {run:?}");
    let mut errors = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "));
    let first = errors.next().unwrap_or_default();
    assert!(words.iter().all(|w| first.contains(w)), "{what}: {run:?}");
    let run = sandbox.run_bounded(&["unpack", "bad.tar", "out"]);
    assert!(matches!(run.code, Some(1 | 3)), "{what}: {run:?}");
    run.one_error(&words);
    assert_eq!(sandbox.names(), ["bad.tar"], "{what}");

    let (mounted, run) = Mounted::attempt(&sandbox, "bad.tar");
    match mounted {
        None => {
            assert!(matches!(run.code, Some(1 | 3)), "{what}: {run:?}");
            run.one_error(&words);
        }
        Some(mounted) => {
            mounted.eio("bad.bin");
            assert!(mounted.read(GOOD).unwrap() == good(), "{what}");
            mounted.logged("bad.bin", &[&digest, "at 0"]);
        }
    }
}

#[track_caller]
pub(crate) fn served(what: &str, blob: Vec<u8>, content: &[u8]) {
    let sandbox = Sandbox::new();
    sandbox.write("good.tar", beside(blob).to_bytes());
    let run = sandbox.run_bounded(&["inspect", "good.tar"]);
    assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
    let mounted = Mounted::new(&sandbox, "good.tar");
    assert!(mounted.read("bad.bin").unwrap() == content, "{what}");
    assert!(mounted.read(GOOD).unwrap() == good(), "{what}");
}

#[test]
fn l0_the_sample_itself_is_served() {
    served("gzip", gzip(&tar()), &content());
    served("tar", tar(), &content());
    served("zstd", zstd::encode_all(&tar()[..], 3).unwrap(), &content());
}

#[test]
fn l1_truncated_streams() {
    let mut random = Random(11);
    let zstd = zstd::encode_all(&tar()[..], 3).unwrap();
    for (name, stream) in [("gzip", gzip(&tar())), ("zstd", zstd)] {
        let mut ends = vec![stream.len() - 1, stream.len() - 8, stream.len() - 9, 20];
        ends.push(100 + random.below(stream.len() - 200));
        for end in ends {
            damaged(
                &format!("{name} cut at {end}"),
                &beside(stream[..end].to_vec()),
            );
        }
    }
    let cut = tar()[..10_000].to_vec();
    damaged("tar cut", &beside(cut));
}

#[test]
fn l1_bad_checksums_flags_and_windows() {
    let change = |at: isize, to: fn(u8) -> u8| {
        let mut stream = gzip(&tar());
        let at = at.rem_euclid(stream.len() as isize) as usize;
        stream[at] = to(stream[at]);
        beside(stream)
    };
    damaged("CRC", &change(-8, |b| b ^ 1));
    damaged("ISIZE", &change(-4, |b| b ^ 1));
    damaged("reserved flag", &change(3, |b| b | 0x80));
    damaged("method", &change(2, |_| 9));
    damaged("block type 3", &change(10, |b| b | 6));
    let mut stream = zstd::encode_all(&tar()[..], 3).unwrap();
    let last = stream.len() - 1;
    stream[last] ^= 0x55;
    damaged("zstd content", &beside(stream));
    // A frame without a content size, that asks for a window of 2^41 bytes.
    let mut frame = b"\x28\xb5\x2f\xfd\x00\xf8".to_vec();
    frame.extend_from_slice(&[1, 0, 0]);
    damaged("zstd window", &beside(frame));
}

#[test]
fn l2_trailing_bytes() {
    let zstd = zstd::encode_all(&tar()[..], 3).unwrap();
    for (name, stream) in [("gzip", gzip(&tar())), ("zstd", zstd)] {
        for trail in [
            &b"x"[..],
            b"\x1f\x8b",
            b"\x1f\x8b\x08\0garbage",
            b"\0\0\0\0x",
        ] {
            let blob = [&stream[..], trail].concat();
            damaged(&format!("{name} and {trail:?}"), &beside(blob));
        }
    }
    damaged("tar and x", &beside([&tar()[..], b"x"].concat()));
    damaged("two tars", &beside([tar(), tar()].concat()));
    damaged(
        "two members",
        &beside([gzip(&tar()), gzip(&tar())].concat()),
    );
}

/// `length` zeros behind `head`, as gzip, without ever holding them.
fn bomb(head: &[u8], length: u64) -> Vec<u8> {
    compressed::gzip_of(9, |out| {
        out.write_all(head).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..length >> 20 {
            out.write_all(&zeros).unwrap();
        }
    })
}

#[test]
fn l3_bombs() {
    let header = Tar::new().file("bad.bin", &content()).0;
    // Padding without end behind the archive: 1030:1.
    damaged("zeros behind the end", &beside(bomb(&header, 200 << 20)));
    // No tar at all.
    damaged("only zeros", &beside(bomb(b"", 100 << 20)));
    // The same twice: layers of compressed layers.
    let twice = gzip(&bomb(b"", 100 << 20));
    damaged("twice", &beside(twice));
    // A header that declares more than any stream of that length can hold.
    let mut size = [0; 12];
    size[0] = 0x80;
    size[4..].copy_from_slice(&(1u64 << 45).to_be_bytes());
    let huge = Header::file("bad.bin", 0).put(124, &size).seal();
    damaged("a file of 32 TiB", &beside(gzip(&huge)));
    // A frame that declares a terabyte.
    let mut frame = b"\x28\xb5\x2f\xfd\xc0\x58".to_vec();
    frame.extend_from_slice(&(1u64 << 40).to_le_bytes());
    frame.extend_from_slice(&[1, 0, 0]);
    damaged("a frame of 1 TiB", &beside(frame));
    // Directories, members and frames without end.
    let directory = Header::file("d/", 0).kind(b'5').seal();
    damaged("directories", &beside(gzip(&directory.repeat(200_000))));
    let empty = gzip(b"");
    damaged("empty members", &beside(empty.repeat(100_000)));
    // A pax record of the largest allowed size, many times over.
    let comment = record("comment", &"x".repeat(60_000));
    let mut tar = Tar::new();
    for _ in 0..200 {
        tar = tar.extension(b'g', comment.as_bytes());
    }
    damaged("pax headers without end", &beside(gzip(&tar.end())));
}

#[test]
fn l4_no_file_or_only_special_files() {
    let special = |flag| {
        let header = Header::file("bad.bin", 0).kind(flag).link("/etc/passwd");
        beside(gzip(&Tar::new().entry(header, b"").end()))
    };
    damaged("nothing", &beside(gzip(&Tar::new().end())));
    for flag in *b"3456" {
        damaged(&format!("type {}", flag as char), &special(flag));
    }
    damaged("no end", &beside(gzip(&Tar::new().0)));
}

#[test]
fn l5_the_layer_disagrees_with_the_descriptor() {
    let other = Tar::new().file("other.bin", &content()).end();
    damaged("another name", &beside(gzip(&other)));
    let two = Tar::new().file("bad.bin", b"1").file("bad.bin", b"2");
    damaged("two files", &beside(gzip(&two.end())));
    let annotated = |key: &str, value: &str| {
        let mut layout = beside(gzip(&tar()));
        layout.edit_manifest(|m| m["layers"][0]["annotations"][key] = json!(value));
        layout
    };
    let size = (content().len() + 1).to_string();
    damaged("another size", &annotated("io.modeloci.file.size", &size));
    // The layer's digest is true, so a mount may serve what it holds; but nobody may be told that
    // all is well.
    let zeros = format!("sha256:{}", "0".repeat(64));
    let layout = annotated("io.modeloci.file.digest", &zeros);
    let sandbox = Sandbox::new();
    sandbox.write("bad.tar", layout.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "bad.tar"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("bad.bin") && run.stderr.contains(&zeros));
    let run = sandbox.run_bounded(&["unpack", "bad.tar", "out"]);
    run.fails(1, &["bad.bin", &layout.layer_digest(0), &zeros]);
    // Annotations that are no values at all.
    for (key, value) in [
        ("io.modeloci.file.size", "-1"),
        ("io.modeloci.file.size", "1e9"),
        ("io.modeloci.file.digest", "sha256:../x"),
        ("io.modeloci.chunks", "nonsense"),
    ] {
        let layout = annotated(key, value);
        let sandbox = Sandbox::new();
        sandbox.write("odd.tar", layout.to_bytes());
        let run = sandbox.run_bounded(&["inspect", "odd.tar"]).sober();
        assert!(
            matches!(run.code, Some(0 | 1 | 3)),
            "{key} {value}: {run:?}"
        );
    }
}

#[test]
fn l6_modes_and_owners_are_masked() {
    let header = Header::file("bad.bin", 4)
        .put(100, b"0007777\0")
        .put(108, b"0000000\0")
        .put(265, b"root");
    let capability = "SCHILY.xattr.security.capability";
    let tar = Tar::new()
        .pax(capability, "\u{1}\0\0\u{2}")
        .entry(header, b"data");
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", beside(gzip(&tar.end())).to_bytes());
    let mounted = Mounted::new(&sandbox, "a.tar");
    let meta = fs::metadata(mounted.path().join("bad.bin")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o555);
    assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
    let mut value = [0; 64];
    let path = mounted.path().join("bad.bin");
    let found = rustix::fs::getxattr(&path, "security.capability", &mut value[..]);
    assert!(found.is_err());
    drop(mounted);
    sandbox.run_bounded(&["unpack", "a.tar", "out"]).ok();
    let meta = fs::metadata(sandbox.path("out/bad.bin")).unwrap();
    assert_eq!(meta.mode() & 0o7022, 0);
    assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
}

/// A layer that holds a link (`1` hard, `2` symbolic) instead of a file.
fn link(name: &str, flag: u8, target: &str) -> Vec<u8> {
    let header = Header::file(name, 0).kind(flag).link(target);
    gzip(&Tar::new().entry(header, b"").end())
}

#[test]
fn l7_links_that_lead_outside_or_nowhere() {
    for flag in *b"12" {
        for target in [
            "/etc/passwd",
            "../../etc/passwd",
            "../bad.bin/../../x",
            "absent",
            "bad.bin",
            ".",
            "",
            "good.bin/x",
            "a\nb\u{1b}[2J",
        ] {
            let layout = beside(link("bad.bin", flag, target));
            damaged(&format!("{} link to {target:?}", flag as char), &layout);
        }
    }
    // In a circle, and in a chain that is too long.
    let circle = Layout::of_layers([
        ("bad.bin", link("bad.bin", b'2', "b")),
        ("b", link("b", b'2', "c")),
        ("c", link("c", b'2', "bad.bin")),
        (GOOD, layer(GOOD, &good())),
    ]);
    let sandbox = Sandbox::new();
    sandbox.refuses(circle.to_bytes(), 3, &["circle"]);
    let names: Vec<String> = (0..50).map(|n| format!("l{n:02}")).collect();
    let mut layers: Vec<(&str, Vec<u8>)> = names
        .windows(2)
        .map(|pair| (pair[0].as_str(), link(&pair[0], b'2', &pair[1])))
        .collect();
    layers.push(("l49", layer("l49", b"the end")));
    sandbox.refuses(Layout::of_layers(layers).to_bytes(), 3, &["l0", "link"]);
}

#[test]
fn l7_links_that_stay_inside_are_served() {
    let layout = Layout::of_layers([
        (GOOD, layer(GOOD, &good())),
        ("chain", link("chain", b'2', "dir/up")),
        ("dir/up", link("up", b'2', "../good.bin")),
        ("hard", link("hard", b'1', GOOD)),
    ]);
    let paths = ["chain", "dir/up", GOOD, "hard"];
    let files = paths.map(|path| (path, good()));
    let sandbox = Sandbox::new();
    sandbox.accepts(layout.to_bytes(), &files);
    sandbox.write("a.tar", layout.to_bytes());
    let mounted = Mounted::new(&sandbox, "a.tar");
    // As files: the tree has no link that a reader could be led by.
    crate::sandbox::assert_tree(&mounted.path(), &files);
    drop(mounted);
    // Where a link leads is content, too, and has a digest.
    let mut changed = layout.clone();
    let other = link("hard", b'1', "chain");
    changed.set(&layout.layer_name(3), other.clone());
    changed.edit_manifest(|m| m["layers"][3]["size"] = json!(other.len()));
    damaged_link(&changed, "hard", &layout.layer_digest(3));
}

/// Thousands of links to one large file cost what the file costs, not a thousand times as much.
#[test]
fn l7_links_that_multiply_the_work() {
    const NAMES: usize = 2000;
    let names: Vec<String> = (0..NAMES).map(|n| format!("l{n:04}")).collect();
    let zeros = vec![0; 16 << 20];
    let links = names.iter().map(|name| (&name[..], link(name, b'2', "a")));
    let layout = Layout::of_layers([("a", layer("a", &zeros))].into_iter().chain(links));
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", layout.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "a.tar", "--json"]).ok();
    let json = run.json();
    assert_eq!(json["verified"], true);
    assert_eq!(json["bytes"], zeros.len() * (NAMES + 1));
    let sha256 = digest(&zeros);
    let layers = json["layers"].as_array().unwrap();
    assert!(
        layers
            .iter()
            .all(|layer| layer["digest"] == sha256.as_str())
    );
    // Each of them is named when it is damaged.
    let mut layout = Layout::of_layers([
        ("a", layer("a", &noise(12, 300_000))),
        ("b", link("b", b'2', "a")),
        ("c", layer("c", &good())),
    ]);
    let name = layout.layer_name(0);
    layout.damage(&name, |bytes| bytes[200_000] ^= 1);
    sandbox.write("b.tar", layout.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "b.tar"]).sober();
    assert_eq!(run.code, Some(1));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", run.stderr);
    assert!(lines[0].contains("error: a (sha256:"), "{}", run.stderr);
    assert!(lines[1].contains("error: b: a (sha256:"), "{}", run.stderr);
    assert!(lines[2].contains("2 of 3 layers failed"), "{}", run.stderr);
}

/// A link whose layer is not what the manifest names: damage, and the matter of that one path.
#[track_caller]
fn damaged_link(layout: &Layout, path: &str, digest: &str) {
    let sandbox = Sandbox::new();
    sandbox.write("bad.tar", layout.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "bad.tar"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains(path) && run.stderr.contains(digest));
    let mounted = Mounted::new(&sandbox, "bad.tar");
    mounted.eio(path);
    assert!(mounted.read(GOOD).unwrap() == good());
}

/// Annotations as `pack` writes them, over a table that is not there or is not one.
#[test]
fn l9_chunk_annotations_that_lie() {
    let blob = gzip(&tar());
    let length = blob.len();
    let sandbox = Sandbox::new();
    for (chunks, range) in [
        (digest(b"nothing"), format!("0+{length}")),
        (digest(b""), "0+0".to_string()),
        (digest(b"nothing"), format!("{length}+0")),
        // Beyond the end, as after a tool has recompressed the layer to fewer bytes.
        (digest(b"nothing"), format!("{length}+1000")),
        (digest(b"nothing"), "0+99999999".to_string()),
    ] {
        // The table is gone: the layer is read as anyone's.
        let mut layout = beside(blob.clone());
        layout.edit_manifest(|m| {
            let annotations = &mut m["layers"][0]["annotations"];
            annotations["io.modeloci.chunks"] = json!(chunks);
            annotations["io.modeloci.chunks.range"] = json!(range);
            annotations["io.modeloci.file.size"] = json!(content().len().to_string());
        });
        sandbox.write("a.tar", layout.to_bytes());
        let run = sandbox
            .run_bounded(&["unpack", "a.tar", "out", "--force"])
            .sober();
        if run.code == Some(0) {
            assert!(fs::read(sandbox.path("out/bad.bin")).unwrap() == content());
        } else {
            assert!(matches!(run.code, Some(1 | 3)), "{run:?}");
            run.one_error(&["bad.bin"]);
        }
    }
    for range in [
        "",
        "1",
        "0+",
        "+1",
        "-1+5",
        "0+999999999999",
        "18446744073709551615+1",
        "a+b",
    ] {
        let mut layout = beside(blob.clone());
        layout.edit_manifest(|m| {
            let annotations = &mut m["layers"][0]["annotations"];
            annotations["io.modeloci.chunks"] = json!(digest(b"x"));
            annotations["io.modeloci.chunks.range"] = json!(range);
            annotations["io.modeloci.file.size"] = json!("88000");
        });
        let words = ["bad.bin", "io.modeloci.chunks.range", "range of the layer"];
        Sandbox::new().refuses(layout.to_bytes(), 3, &words);
    }
}

/// A model that `pack` wrote, whose first layer can be written anew with all digests right.
struct Packed {
    layout: Layout,
    /// The layer up to its table.
    data: Vec<u8>,
    table: Vec<u8>,
}

impl Packed {
    /// `bad.bin` and a good file, in chunks of this size.
    fn new(content: Vec<u8>, chunk_size: &str) -> Packed {
        let sandbox = Sandbox::new();
        sandbox.tree("model", &[("bad.bin", content), (GOOD, good())]);
        packing::pack(&sandbox, &["--chunk-size", chunk_size]).ok();
        let layout = Layout::parse(&fs::read(sandbox.path("m.tar")).unwrap());
        let blob = layout.get(&layout.layer_name(0));
        let manifest = layout.manifest();
        let range = &manifest["layers"][0]["annotations"]["io.modeloci.chunks.range"];
        let (offset, length) = range.as_str().unwrap().split_once('+').unwrap();
        let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
        let table = wrap::unwrap(Framing::Gzip, &blob[offset..offset + length]).unwrap();
        Packed {
            data: blob[..offset].to_vec(),
            table,
            layout,
        }
    }

    /// The model with other data and another table.
    fn with(&self, data: &[u8], table: &[u8]) -> Layout {
        let offset = data.len();
        let (members, length) = wrap::wrap(Framing::Gzip, table, offset as u64);
        let blob = [data, &members].concat();
        let mut layout = self.layout.clone();
        layout.remove(&self.layout.layer_name(0));
        layout.add_blob(&blob);
        layout.edit_manifest(|m| {
            let layer = &mut m["layers"][0];
            layer["digest"] = json!(digest(&blob));
            layer["size"] = json!(blob.len());
            layer["annotations"]["io.modeloci.chunks"] = json!(digest(table));
            layer["annotations"]["io.modeloci.chunks.range"] = json!(format!("{offset}+{length}"));
        });
        layout
    }
}

/// A table whose digest is right, about a layer that it does not describe.
#[test]
fn l9_a_pinned_table_that_lies() {
    let sandbox = Sandbox::new();
    let weights = [noise(10, 150_000), b"text ".repeat(30_000)].concat();
    let packed = Packed::new(weights, "64KiB");
    let lie = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut lying = packed.table.clone();
        change(&mut lying);
        packed.with(&packed.data, &lying)
    };
    sandbox.write("same.tar", lie(&|_| ()).to_bytes());
    sandbox.run_bounded(&["inspect", "same.tar"]).ok();
    let (header, row) = (104, 72);
    for (what, at, bytes) in [
        ("magic", 0, &b"M"[..]),
        ("version", 8, &[2]),
        ("algorithm", 10, &[1]),
        ("framing", 11, &[1]),
        ("chunk size", 12, &[0, 0, 2, 0]),
        ("no chunk size", 12, &[0, 0, 0, 0]),
        ("file size", 16, &[1]),
        ("a huge file", 22, &[1]),
        ("file offset", 24, &[1]),
        ("tar size", 32, &[1]),
        ("data size", 40, &[1]),
        (
            "rows",
            48,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("data digest", 72, &[0, 0, 0, 0]),
        ("an overlap", header + row, &[10]),
        ("beyond the blob", header + row + 5, &[1]),
        ("a gap", header + row + 8, &[1]),
        ("an empty chunk", header + row + 8, &[0, 0, 0, 0]),
        ("a chunk digest", header + row + 40, &[0, 0, 0, 0]),
        ("sub-offsets", header + row + 20, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let layout = lie(&|table| table[at..at + bytes.len()].copy_from_slice(bytes));
        let sandbox = Sandbox::new();
        sandbox.write("bad.tar", layout.to_bytes());
        let run = sandbox.run_bounded(&["inspect", "bad.tar"]).sober();
        assert_eq!(run.code, Some(1), "{what}: {run:?}");
        assert!(run.stderr.contains("bad.bin"), "{what}: {run:?}");
        assert!(run.stderr.contains(&layout.layer_digest(0)), "{what}");
    }
    for change in [
        &(|table: &mut Vec<u8>| table[104 + 72 + 40] ^= 1) as &dyn Fn(&mut Vec<u8>),
        &|table| table[16] ^= 1,
        &|table| table.truncate(150),
        &|table| table.clear(),
        &|table| {
            // Two chunks take each other's place.
            let (a, b) = table.split_at_mut(104 + 2 * 72);
            a[104 + 72..].swap_with_slice(&mut b[..72]);
        },
    ] {
        let layout = lie(change);
        let sandbox = Sandbox::new();
        sandbox.write("bad.tar", layout.to_bytes());
        let mounted = Mounted::new(&sandbox, "bad.tar");
        mounted.eio("bad.bin");
        assert!(mounted.read(GOOD).unwrap() == good());
        mounted.logged("bad.bin", &[&layout.layer_digest(0)]);
        drop(mounted);
        let run = sandbox.run_bounded(&["unpack", "bad.tar", "out"]);
        run.fails(1, &["bad.bin", &layout.layer_digest(0)]);
    }
}

/// Another writer may divide a stored chunk into other blocks, and one may lie about them.
#[test]
fn l9_stored_blocks_of_another_shape() {
    const CHUNK: usize = 128 << 10;
    let weights = noise(12, CHUNK + 5000);
    let packed = Packed::new(weights.clone(), "128KiB");
    let mut table = packed.table.clone();
    let row = 104 + 72;
    let start = u64::from_le_bytes(table[row..row + 8].try_into().unwrap()) as usize;
    let end = start + u32::from_le_bytes(table[row + 8..row + 12].try_into().unwrap()) as usize;
    for (lens, good_shape) in [
        ([65_531, 65_531, 10], true),
        ([65_535, 65_535, 2], true),
        ([20, 65_535, 65_517], true),
        ([65_531, 65_532, 10], false),
        ([65_531, 65_531, 9], false),
    ] {
        // The blocks that the lengths promise, in the place of those that `pack` wrote.
        let (mut segment, mut rest) = (Vec::new(), &weights[..CHUNK]);
        for len in lens {
            let header = u16::try_from(len).unwrap();
            segment.push(0);
            segment.extend(header.to_le_bytes());
            segment.extend((!header).to_le_bytes());
            let (data, later) = rest.split_at(len.min(rest.len()));
            segment.extend(data);
            rest = later;
        }
        segment.resize(end - start, 0);
        let mut data = packed.data.clone();
        data[start..end].copy_from_slice(&segment);
        let chunk_digest = Digest::of(Algorithm::Blake3, &segment).to_string();
        let data_digest = digest(&data);
        for (at, text) in [(row + 40, &chunk_digest), (72, &data_digest)] {
            let (_, hex) = text.split_once(':').unwrap();
            for (n, to) in table[at..at + 32].iter_mut().enumerate() {
                *to = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
            }
        }
        let layout = packed.with(&data, &table);
        if good_shape {
            let files = [("bad.bin", weights.clone()), (GOOD, good())];
            Sandbox::new().accepts(layout.to_bytes(), &files);
        } else {
            damaged(&format!("{lens:?}"), &layout);
        }
    }
}

/// A file that `pack` wrote, damaged in one chunk: that one only.
#[test]
fn d3_a_damaged_chunk_leaves_the_others() {
    let sandbox = Sandbox::new();
    let weights = noise(9, 300_000);
    sandbox.tree("model", &[("w.bin", weights.clone()), (GOOD, good())]);
    packing::pack(&sandbox, &["--chunk-size", "64KiB"]).ok();
    let mut archive = fs::read(sandbox.path("m.tar")).unwrap();
    let needle = &weights[200_000..200_032];
    let at = archive.windows(32).position(|w| w == needle).unwrap();
    archive[at] ^= 0x10;
    sandbox.write("m.tar", archive);
    let mounted = Mounted::new(&sandbox, "m.tar");
    mounted.eio("w.bin");
    mounted.logged("w.bin", &["sha256:"]);
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::open(mounted.path().join("w.bin")).unwrap();
    let mut start = vec![0; 4096];
    file.read_exact_at(&mut start, 0).unwrap();
    assert!(start == weights[..4096]);
    let mut end = vec![0; 4096];
    file.read_exact_at(&mut end, 290_000).unwrap();
    assert!(end == weights[290_000..294_096]);
    let error = file.read_exact_at(&mut end, 200_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert!(mounted.read(GOOD).unwrap() == good());
}

/// Without its table a layer is read as anyone's; what is wrong with its header is damage even so.
#[test]
fn d3_a_damaged_header_and_a_damaged_table() {
    let sandbox = Sandbox::new();
    sandbox.tree("model", &[("a.bin", content())]);
    packing::pack(&sandbox, &["--compression", "none"]).ok();
    plain::rewrite(&sandbox.path("m.tar"));
    let mut layout = Layout::parse(&fs::read(sandbox.path("m.tar")).unwrap());
    let manifest = layout.entries.iter().find(|(_, bytes)| {
        bytes.starts_with(b"{") && bytes.windows(17).any(|w| w == b"io.modeloci.chunk")
    });
    let manifest: Value = serde_json::from_slice(&manifest.unwrap().1).unwrap();
    let descriptor = &manifest["layers"][0];
    let path = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    layout.damage(
        &path(&descriptor["annotations"]["io.modeloci.chunks"]),
        |table| table[20] ^= 1,
    );
    layout.damage(&path(&descriptor["digest"]), |blob| blob[156] = b'A');
    layout.entries.retain(|(name, _)| name != "manifest.json");
    let archive = sandbox.write("damaged.tar", layout.to_bytes());
    let model = Model::open(archive, &OpenOptions::default()).unwrap();
    let file = model.find("a.bin").unwrap().inode;
    for _ in 0..2 {
        assert_eq!(
            model.read_at(file, 0, 1).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(model.verify(file).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// The start of a large layer is served before its end is known; what was served stays right, but
/// the file is not called verified any more.
#[test]
fn l5_a_second_file_behind_what_was_served() {
    let sandbox = Sandbox::new();
    let text = b"weights ".repeat(1_500_000);
    let tar = Tar::new().file("bad.bin", &text).file("second", b"2").end();
    let archive = sandbox.write("two.tar", beside(gzip(&tar)).to_bytes());
    let model = Model::open(archive, &OpenOptions::default()).unwrap();
    let file = model.find("bad.bin").unwrap().inode;
    assert!(model.read_at(file, 0, 1000).unwrap() == text[..1000]);
    let error = model.read_at(file, text.len() as u64 - 10, 10).unwrap_err();
    assert!(error.to_string().contains("bad.bin"), "{error}");
    assert!(!model.verified(file));
}

#[test]
fn l8_sizes_around_a_chunk() {
    let sandbox = Sandbox::new();
    let chunk = 64 << 10;
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("less", noise(1, chunk - 1)),
        ("one", noise(2, chunk)),
        ("more", noise(3, chunk + 1)),
        ("text", b"text ".repeat(chunk / 5)),
    ];
    sandbox.tree("model", &files);
    for compression in ["auto", "gzip", "zstd", "none"] {
        let options = ["--force", "--chunk-size", "64KiB", "--compression"];
        packing::pack(&sandbox, &[&options[..], &[compression]].concat()).ok();
        sandbox.accepts(fs::read(sandbox.path("m.tar")).unwrap(), &files);
    }
    // Foreign layers, too: around the block of a tar.
    let sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, chunk - 1, chunk + 1];
    let files: Vec<(String, Vec<u8>)> = sizes
        .map(|size| (format!("f{size}"), noise(4, size)))
        .to_vec();
    let mut files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    files.sort();
    let layout = Layout::of(files.iter().map(|(n, b)| (*n, &b[..])));
    sandbox.accepts(layout.to_bytes(), &files);
}
