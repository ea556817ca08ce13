//! t: the outer tar.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::net::UnixListener;

use modeloci::model::OpenOptions;
use modeloci::{ErrorKind, Model};

use crate::forge::{BLOCK, Header, Layout, Random, Tar, record, sample_files};
use crate::sandbox::{Sandbox, is_root};

/// The sample with one more thing in front of it, that the test is about.
fn with(tar: Tar) -> Vec<u8> {
    tar.raw(&Layout::sample().to_bytes()).0
}

fn refuses(tar: Tar, words: &[&str]) {
    Sandbox::new().refuses(with(tar), 3, words);
}

#[test]
fn t0_the_sample_itself_is_accepted() {
    let sandbox = Sandbox::new();
    sandbox.accepts(Layout::sample().to_bytes(), &sample_files());
    // What stands beside the layout is ignored.
    let beside = Tar::new()
        .file("README", b"hello")
        .entry(Header::file("", 0).kind(b'5'), b"")
        .pax("comment", "x")
        .file("x", b"");
    sandbox.accepts(with(beside), &sample_files());
}

#[test]
fn t1_truncated_at_any_byte() {
    let sandbox = Sandbox::new();
    let archive = Layout::sample().to_bytes();
    // Through the library, at every seventh byte: each place within a block, and each block. (Unit
    // tests cut at every byte.) Through the binary, in each block.
    let path = sandbox.write("cut.tar", &archive);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for end in (0..archive.len()).rev().step_by(7) {
        file.set_len(end as u64).unwrap();
        let error = Model::open(&path, &OpenOptions::default()).err();
        let error = error.unwrap_or_else(|| panic!("cut at {end} went unnoticed"));
        assert_eq!(error.kind(), ErrorKind::Malformed, "cut at {end}: {error}");
    }
    let mut random = Random(1);
    for block in 0..archive.len() / BLOCK {
        let end = block * BLOCK + [0, 1, BLOCK - 1, random.below(BLOCK)][block % 4];
        sandbox.write("cut.tar", &archive[..end]);
        let run = sandbox.run_bounded(&["inspect", "--no-verify", "cut.tar"]);
        run.fails(3, &["cut.tar"]);
    }
    sandbox.refuses(&archive[..archive.len() - 1], 3, &["bad.tar", "truncated"]);
    let half = archive.len() / 2;
    sandbox.refuses(&archive[..half], 3, &["bad.tar", "ends"]);
}

#[test]
fn t2_a_bad_checksum() {
    let mut archive = Layout::sample().to_bytes();
    archive[0] ^= 1;
    Sandbox::new().refuses(&archive, 3, &["bad.tar", "not a tar"]);
    let mut tar = with(Tar::new().file("x", b"data"));
    tar[2 * BLOCK + 148] ^= 1;
    Sandbox::new().refuses(tar, 3, &["offset 1024", "checksum"]);
}

#[test]
fn t2_sizes_that_are_none() {
    let size = |bytes: &[u8]| Tar::new().entry(Header::file("x", 0).put(124, bytes), b"");
    let mut positive = [0xff; 12];
    positive[0] = 0x80;
    // Negative, and overflowing, base-256; then octal that is none.
    for bytes in [
        &[0xff; 12][..],
        &positive,
        b"-0000000001\0",
        b"0000000008x\0",
        b"00000000 01\0",
    ] {
        refuses(size(bytes), &["bad.tar", "size"]);
    }
    let wide = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
    refuses(size(&wide), &["bad.tar", "entry \"x\""]);
}

#[test]
fn t3_pax_size_disagrees() {
    // One reader takes the data for headers, another skips them (CVE-2025-62518).
    let smuggled = Tar::new().file("index.json", b"{}").0;
    let words = ["entry \"x\"", "pax size", "disagree"];
    refuses(Tar::new().pax("size", "0").file("x", &smuggled), &words);
    let bigger = smuggled.len().to_string();
    let zero = Header::file("x", 0);
    refuses(
        Tar::new().pax("size", &bigger).entry(zero, &smuggled),
        &words,
    );
    // Said twice, and saying the same, is no lie.
    let sandbox = Sandbox::new();
    let same = Tar::new().pax("size", &bigger).file("x", &smuggled);
    sandbox.accepts(with(same), &sample_files());
}

#[test]
fn t4_malformed_extension_headers() {
    let pax = |data: &[u8]| Tar::new().extension(b'x', data).file("x", b"");
    for data in [
        &b"no record"[..],
        b"99 path=x\n",
        b"9 path=x",
        b"-1 path=x\n",
        b"08 path=x\n",
        b"99999999999999999999 path=x\n",
        b"9 =pathx\n",
        b"3 \n",
        b"\0",
    ] {
        refuses(pax(data), &["offset 512", "malformed pax record"]);
    }
    refuses(
        pax(record("size", "-1").as_bytes()),
        &["pax size", "number"],
    );
    refuses(pax(record("path", "").as_bytes()), &["pax path", "empty"]);
    let long = |data: &[u8]| Tar::new().extension(b'L', data).file("x", b"");
    refuses(long(b"\0"), &["long name", "empty"]);
    refuses(long(b"a\0b\0"), &["long name", "behind its end"]);
}

#[test]
fn t4_dangling_extension_headers() {
    let archive = Layout::sample().tar();
    for tar in [
        archive.clone().pax("comment", "x"),
        archive.clone().extension(b'L', b"name\0"),
        archive.extension(b'K', b"target\0"),
    ] {
        let words = ["extension header that no entry follows"];
        Sandbox::new().refuses(tar.clone().end(), 3, &words);
        Sandbox::new().refuses(tar.0, 3, &["ends inside", "extension headers"]);
    }
}

#[test]
fn t4_repeated_extension_headers() {
    let twice = format!("{}{}", record("path", "a"), record("path", "b"));
    refuses(
        Tar::new().extension(b'x', twice.as_bytes()).file("x", b""),
        &["pax path", "twice"],
    );
    let name = |tar: Tar| tar.extension(b'L', b"name\0");
    let pax = |tar: Tar| tar.pax("comment", "x");
    let x = |tar: Tar| tar.file("x", b"");
    refuses(x(pax(pax(Tar::new()))), &["two pax headers"]);
    refuses(x(name(name(Tar::new()))), &["two long names"]);
    refuses(x(name(pax(Tar::new()))), &["pax and GNU"]);
    refuses(x(pax(name(Tar::new()))), &["pax and GNU"]);
    let global = record("path", "index.json");
    refuses(
        x(Tar::new().extension(b'g', global.as_bytes())),
        &["global pax record", "path"],
    );
}

#[test]
fn t4_oversized_extension_headers() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let text = vec![b'n'; (64 << 10) + 1];
        refuses(
            Tar::new().extension(flag, &text).file("x", b""),
            &["extension header of 65537 bytes", "limit"],
        );
        // Declared, and not there: nothing may be allocated for it.
        let declared = Header::file("PaxHeaders/x", (8 << 30) - 1).kind(flag);
        refuses(Tar::new().entry(declared, b""), &["extension header"]);
    }
    let long = "d/".repeat(2100);
    refuses(
        Tar::new().pax("path", &long).file("x", b""),
        &["path has 4200 bytes", "limit"],
    );
}

#[test]
fn t5_sparse_entries() {
    let words = ["sparse"];
    let sparse = Header::file("x", 0).put(257, b"ustar  \0").kind(b'S');
    refuses(Tar::new().entry(sparse, b""), &words);
    for key in ["GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.name"] {
        refuses(Tar::new().pax(key, "1").file("x", b""), &words);
    }
}

#[test]
fn t6_a_small_file_that_declares_8_gib() {
    let declared = *b"\x80\0\0\0\0\0\0\x02\0\0\0\0";
    for name in [
        format!("blobs/sha256/{}", "0".repeat(64)),
        "manifest.json".to_string(),
        "index.json".to_string(),
    ] {
        let header = Header::file(&name, 0).put(124, &declared).seal();
        let sandbox = Sandbox::new();
        let words = ["bad.tar", &name, "8589934592 bytes", "ends after 0"];
        sandbox.refuses(header, 3, &words);
        // Far less than what is declared is enough to say so.
        sandbox.write("bad.tar", header);
        let command = sandbox.limited("-v 131072", &["inspect", "bad.tar"]);
        crate::sandbox::finish(command).fails(3, &words);
    }
}

#[test]
fn t7_two_entries_for_one_thing() {
    let layout = Layout::sample();
    let blob = layout.layer_name(0);
    for (name, rule) in [
        (blob.as_str(), "two entries"),
        ("index.json", "two entries"),
        ("manifest.json", "two entries"),
        ("oci-layout", "two entries"),
        ("config.json", "two entries"),
    ] {
        let said = match name.strip_prefix("blobs/") {
            Some(path) => path.replace('/', ":"),
            None => name.to_string(),
        };
        // The same bytes twice, in either spelling.
        let bytes = layout.get(name);
        for spelling in [name.to_string(), format!("./{name}")] {
            let archive = layout.tar().file(spelling, bytes).end();
            Sandbox::new().refuses(archive, 3, &["bad.tar", &said, rule]);
        }
    }
    for path in ["/index.json", "x/../index.json", ".//index.json", "././x"] {
        let archive = layout.tar().file(path, b"{}").end();
        Sandbox::new().refuses(archive, 3, &["bad.tar", path, "component"]);
    }
}

#[test]
fn t8_a_blob_that_is_no_regular_file() {
    let layout = Layout::sample();
    let name = layout.layer_name(0);
    for (flag, what) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "device"),
        (b'4', "device"),
        (b'5', "directory"),
        (b'6', "FIFO"),
    ] {
        for entry in [name.as_str(), "index.json", "oci-layout"] {
            let mut layout = layout.clone();
            layout.remove(entry);
            let header = Header::file(entry, 0).kind(flag).link(layout.layer_name(1));
            let archive = layout.tar().entry(header, b"").end();
            let sandbox = Sandbox::new();
            if flag == b'5' && entry != name {
                // A directory of that name is no document either.
                sandbox.refuses(archive, 3, &["bad.tar", entry]);
            } else {
                sandbox.refuses(archive, 3, &["bad.tar", entry, what]);
            }
        }
    }
}

#[test]
fn t8_a_hard_linked_manifest() {
    let layout = Layout::sample();
    let manifest = crate::forge::blob_name(layout.get("manifest.json"));
    let linked = |target: &str| {
        let mut layout = layout.clone();
        layout.remove("manifest.json");
        let header = Header::file("manifest.json", 0).kind(b'1').link(target);
        layout.tar().entry(header, b"").end()
    };
    Sandbox::new().accepts(linked(&manifest), &sample_files());
    let absent = format!("blobs/sha256/{}", "0".repeat(64));
    for target in ["config.json", "/etc/passwd", "../x", absent.as_str()] {
        let words = ["manifest.json", "hard link", target, "no blob"];
        Sandbox::new().refuses(linked(target), 3, &words);
    }
    // A blob, but not the manifest's.
    let other = linked(&layout.layer_name(0));
    Sandbox::new().refuses(other, 3, &["manifest.json"]);
}

#[test]
fn t9_data_after_the_end() {
    let archive = Layout::sample().to_bytes();
    let two = [&archive[..], &archive].concat();
    Sandbox::new().refuses(two, 3, &["bad.tar", "after"]);
    let byte = [&archive[..], b"x"].concat();
    Sandbox::new().refuses(byte, 3, &["bad.tar", "after"]);
    let far = [&archive[..], &vec![0; 100 * BLOCK], b"x"].concat();
    Sandbox::new().refuses(far, 3, &["bad.tar", "after"]);
    let one_zero_block = Tar(archive.clone()).0.len() - BLOCK;
    let hidden = [&archive[..one_zero_block], &archive].concat();
    Sandbox::new().refuses(hidden, 3, &["bad.tar", "zero block"]);
    // Padding to a record is no data.
    let padded = [&archive[..], &[0; 20 * BLOCK]].concat();
    Sandbox::new().accepts(padded, &sample_files());
}

#[test]
fn t10_ten_million_empty_entries() {
    let sandbox = Sandbox::new();
    let mut file = File::create(sandbox.path("bad.tar")).unwrap();
    // The limit is 250,000; the rest is a hole that claims to be ten million.
    let headers: Vec<u8> = (0..1000)
        .flat_map(|n| Header::file(format!("{n}"), 0).seal())
        .collect();
    for _ in 0..251 {
        file.write_all(&headers).unwrap();
    }
    file.set_len(10_000_000 * BLOCK as u64).unwrap();
    let command = sandbox.limited("-v 262144", &["unpack", "bad.tar", "out"]);
    let words = ["bad.tar", "more than 250000 entries"];
    crate::sandbox::finish(command).fails(3, &words);
    assert_eq!(sandbox.names(), ["bad.tar"]);
}

#[test]
fn t11_not_an_archive_at_all() {
    let expected = "expected an uncompressed tar";
    for (bytes, what) in [
        (&b""[..], "an empty file"),
        (b"x", "too short"),
        (&[b'x'; 5000], "not a tar"),
        (b"PK\x03\x04 and so on", "a zip file"),
        (b"\x7fELF and so on", "too short"),
    ] {
        Sandbox::new().refuses(bytes, 3, &["bad.tar", what, expected]);
    }
    let gz = crate::forge::gzip(&Layout::sample().to_bytes());
    Sandbox::new().refuses(gz, 3, &["compressed with gzip", "decompress it"]);
    let foreign = Tar::new().file("README", b"no model").end();
    Sandbox::new().refuses(foreign, 3, &["bad.tar", "without blobs", expected]);
    let zeros = vec![0; 20 * BLOCK];
    Sandbox::new().refuses(zeros, 3, &["bad.tar", expected]);
}

#[test]
fn t11_a_directory_that_is_no_image_layout() {
    let sandbox = Sandbox::new();
    sandbox.mkdir("empty");
    sandbox.refuses_path("empty", 3, &["empty", "not an image layout", "expected"]);
    sandbox.write("loose/index.json", "{}");
    sandbox.refuses_path("loose", 3, &["loose", "blobs"]);
    sandbox.mkdir("bare/blobs/sha256");
    sandbox.refuses_path("bare", 3, &["bare", "index.json"]);
}

#[test]
fn t11_what_is_no_file_does_not_block() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let words = ["fifo", "neither a regular file nor a directory"];
    sandbox.refuses_path("fifo", 3, &words);
    let _listener = UnixListener::bind(sandbox.path("socket")).unwrap();
    sandbox.refuses_path("socket", 3, &["socket", "neither"]);
    sandbox.refuses_path("/dev/zero", 3, &["/dev/zero", "neither"]);
}

#[test]
fn t11_what_cannot_be_opened() {
    let sandbox = Sandbox::new();
    sandbox.refuses_path("absent.tar", 5, &["absent.tar"]);
    sandbox.write("closed.tar", Layout::sample().to_bytes());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(sandbox.path("closed.tar"), mode).unwrap();
    let command = sandbox.as_user(&["inspect", "closed.tar"]);
    crate::sandbox::finish(command).fails(5, &["closed.tar", "ermission denied"]);
    if !is_root() {
        sandbox.refuses_path("closed.tar", 5, &["closed.tar"]);
    }
}

/// A hole in the file instead of the blob that the headers promise.
#[test]
fn t1_a_file_that_shrinks_to_a_hole() {
    let sandbox = Sandbox::new();
    let archive = Layout::sample().to_bytes();
    let mut file = File::create(sandbox.path("hole.tar")).unwrap();
    file.write_all(&archive[..BLOCK]).unwrap();
    file.seek(SeekFrom::Start(archive.len() as u64 - 1))
        .unwrap();
    file.write_all(b"\0").unwrap();
    let run = sandbox.run_bounded(&["inspect", "hole.tar"]);
    assert_ne!(run.code, Some(0));
    run.sober();
}

/// An image layout in a directory: nothing outside of it is read, and nothing in it blocks.
#[test]
fn t8_links_and_special_files_in_a_layout_directory() {
    let layout = Layout::sample();
    for entry in [
        layout.layer_name(0),
        crate::forge::blob_name(layout.get("config.json")),
        "index.json".to_string(),
        "manifest.json".to_string(),
        "oci-layout".to_string(),
        "blobs/sha256".to_string(),
        "blobs".to_string(),
    ] {
        let sandbox = Sandbox::new();
        for (name, bytes) in &layout.entries {
            sandbox.write(&format!("layout/{name}"), bytes);
        }
        sandbox.accepts_path("layout", &sample_files());
        let path = sandbox.path("layout").join(&entry);
        let outside = sandbox.path("outside");
        fs::rename(&path, &outside).unwrap();
        // It is all there, but reached from outside.
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        let name = entry.split('/').next().unwrap();
        sandbox.refuses_path("layout", 3, &["layout", name]);
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        sandbox.refuses_path("layout", 3, &["layout", name]);
    }
}
