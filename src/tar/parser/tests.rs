#![allow(clippy::unwrap_used)]

use super::*;
use crate::error::ErrorKind;
use crate::limits;
use crate::tar::EntryKind;
use crate::tar::outer;
use crate::tar::raw::{RawHeader, RawTar, record};

fn index(tar: &[u8]) -> Result<Vec<Entry>> {
    outer::index(tar.len() as u64, |buf, offset| {
        let at = offset as usize;
        buf.copy_from_slice(&tar[at..at + buf.len()]);
        Ok(())
    })
}

/// The only entry of a tar.
fn one(tar: RawTar) -> Entry {
    let mut entries = index(&tar.finish()).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// The rule that a tar breaks.
#[track_caller]
fn refused(tar: RawTar) -> String {
    match index(&tar.finish()) {
        Err(error @ Error::Malformed { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn refused_for(tar: RawTar, rule: &str) {
    let message = refused(tar);
    assert!(message.contains(rule), "{message:?} does not say {rule:?}");
}

fn file(size: u64) -> RawHeader {
    RawHeader::new(b'0', b"f", size)
}

#[test]
fn reads_every_kind() {
    for (flag, kind) in [
        (b'0', EntryKind::File),
        (0, EntryKind::File),
        (b'7', EntryKind::File),
        (b'1', EntryKind::HardLink),
        (b'2', EntryKind::Symlink),
        (b'3', EntryKind::Special),
        (b'4', EntryKind::Special),
        (b'5', EntryKind::Directory),
        (b'6', EntryKind::Special),
    ] {
        let entry = one(RawTar::new().link(flag, "n", "t"));
        assert_eq!(entry.kind, kind);
        let is_link = matches!(flag, b'1' | b'2');
        assert_eq!(entry.link, if is_link { &b"t"[..] } else { b"" });
        assert_eq!((entry.mode, entry.mtime), (0o644, 7));
    }
}

#[test]
fn reads_gnu_and_plain_headers() {
    let gnu = file(0).field(257, b"ustar  \0");
    assert_eq!(one(RawTar::new().header(gnu)).path, b"f");
    for magic in [&[0; 8], b"ustar\0\0\0"] {
        let plain = file(0).field(257, magic);
        assert_eq!(one(RawTar::new().header(plain)).path, b"f");
    }
}

#[test]
fn joins_the_ustar_prefix() {
    let header = RawHeader::new(b'0', &[b'n'; 100], 0).field(345, &[b'p'; 155]);
    let path = one(RawTar::new().header(header)).path;
    assert_eq!(path, [&[b'p'; 155][..], b"/", &[b'n'; 100]].concat());
}

#[test]
fn t2_bad_checksums() {
    let good = file(0).finish();
    for at in 0..512 {
        let mut tar = RawTar::new();
        let mut block = good;
        block[at] ^= 1;
        tar.0.extend(block);
        refused(tar);
    }
    // The sum of signed bytes, which some readers take too.
    let mut block = RawHeader::new(b'0', "é".as_bytes(), 0).finish();
    let sum: i32 = block.iter().map(|&b| i32::from(b as i8)).sum::<i32>()
        - block[148..156]
            .iter()
            .map(|&b| i32::from(b as i8))
            .sum::<i32>()
        + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = RawTar::new();
    tar.0.extend(block);
    refused_for(tar, "checksum");
}

#[test]
fn t2_numbers_that_are_no_size() {
    for (size, rule) in [
        (
            &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            "size is negative",
        ),
        (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", "size is negative"),
        (b"\xff\0\0\0\0\0\0\0\0\0\0\0", "too large"),
        (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", "too large"),
        (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", "too large"),
        (
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "too large",
        ),
        (
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            "the limit is",
        ),
        (b"\x81\0\0\0\0\0\0\0\0\0\0\0", "not an octal number"),
        (b"-0000000001\0", "not an octal number"),
        (b"0000000008\0\0", "not an octal number"),
        (b"0o000000001\0", "not an octal number"),
        (b"00000_00001\0", "not an octal number"),
        (b"0000\x0000001\0\0", "not an octal number"),
        (b"\x0000000000001", "not an octal number"),
        (b"0000 0000001", "not an octal number"),
        (b"+0000000001\0", "not an octal number"),
    ] {
        refused_for(RawTar::new().header(file(0).field(124, size)), rule);
    }
}

#[test]
fn reads_the_spellings_of_a_number() {
    for size in [
        &b"00000000001\0"[..],
        b"          1\0",
        b"          1 ",
        b"000000000001",
        b"1\0\0\0\0\0\0\0\0\0\0\0",
        b"1 \0 \0       ",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
    ] {
        let tar = RawTar::new().header(file(0).field(124, size)).data(b"x");
        assert_eq!(one(tar).size, 1, "{size:?}");
    }
    for (mtime, expected) in [
        (&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"[..], -2),
        (b"            ", 0),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0", 0),
    ] {
        let tar = RawTar::new().header(file(0).field(136, mtime));
        assert_eq!(one(tar).mtime, expected);
    }
}

#[test]
fn t3_pax_size_disagrees() {
    let sized = |pax: &str, header: u64| {
        RawTar::new()
            .pax(b'x', &[("size", pax)])
            .header(file(header))
            .data(&[1; 1024])
    };
    assert_eq!(one(sized("1024", 1024)).size, 1024);
    for (pax, header) in [
        ("0", 1024),
        ("1024", 0),
        ("512", 1024),
        ("1025", 1024),
        ("8589934591", 0),
    ] {
        refused_for(sized(pax, header), "disagree");
    }
    for (pax, rule) in [
        ("", "not a number"),
        ("-1", "not a number"),
        ("+1024", "not a number"),
        ("01024", "not a number"),
        ("1024 ", "not a number"),
        ("0x400", "not a number"),
        ("1024.0", "not a number"),
        ("9223372036854775808", "not a number"),
        ("99999999999999999999999", "not a number"),
        ("8589934592", "needs 8589934592 bytes"),
        ("9223372036854775807", "the limit is"),
    ] {
        refused_for(sized(pax, 0), rule);
    }
}

#[test]
fn l8_a_pax_size_of_8_gib_beside_an_empty_header_field() {
    // What Python and Go write. The data are not there: only the arithmetic counts.
    let size = 9u64 << 30;
    let head = RawTar::new()
        .pax(b'x', &[("size", &size.to_string())])
        .header(file(0));
    let head_len = head.0.len() as u64;
    let length = head_len + size + 1024;
    let entries = outer::index(length, |buf, offset| {
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = head.0.get(offset as usize + i).copied().unwrap_or(0);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((entries[0].size, entries[0].data_offset), (size, head_len));
}

#[test]
fn reads_pax_records() {
    let tar = RawTar::new()
        .pax(b'g', &[("comment", "c")])
        .file("first", b"1")
        .pax(
            b'x',
            &[
                ("path", "ü/long name"),
                ("linkpath", "t"),
                ("uid", "5"),
                ("mtime", "9.75"),
            ],
        )
        .link(b'2', "short", "other")
        .file("last", b"");
    let entries = index(&tar.finish()).unwrap();
    assert_eq!(entries[0].path, b"first");
    assert_eq!(entries[1].path, "ü/long name".as_bytes());
    assert_eq!((&entries[1].link[..], entries[1].mtime), (&b"t"[..], 9));
    assert_eq!(
        (entries[1].header_offset, entries[1].data_offset),
        (2048, 3584)
    );
    assert_eq!((&entries[2].path[..], entries[2].mtime), (&b"last"[..], 7));
    for (text, expected) in [
        ("-1.5", -2),
        ("1e-05", 0),
        ("0", 0),
        ("1795470318.8399773", 1795470318),
    ] {
        let tar = RawTar::new().pax(b'x', &[("mtime", text)]).file("f", b"");
        assert_eq!(one(tar).mtime, expected, "{text}");
    }
    for text in [
        "",
        "x",
        "1.2.3",
        "nan",
        "inf",
        "1e400",
        "1.x",
        "-",
        "99999999999999999999",
    ] {
        refused_for(
            RawTar::new().pax(b'x', &[("mtime", text)]).file("f", b""),
            "is not a time",
        );
    }
}

#[test]
fn reads_gnu_long_names() {
    let name = "n".repeat(300);
    let tar = RawTar::new()
        .entry(b'K', "././@LongLink", b"target\0")
        .entry(b'L', "././@LongLink", format!("{name}\0").as_bytes())
        .link(b'1', "nnn", "tar");
    let entry = one(tar);
    assert_eq!(
        (entry.path, &entry.link[..]),
        (name.into_bytes(), &b"target"[..])
    );
    assert_eq!(entry.header_offset, 0);
}

#[test]
fn t4_malformed_pax_records() {
    let raw = |data: &[u8]| RawTar::new().entry(b'x', "p", data).file("f", b"");
    for data in [
        &b"x"[..],
        b"12",
        b"0 a=b\n",
        b"6 a=bc\n",
        b"7 a=b\n",
        b"5 a=b\n",
        b"06 a=b\n",
        b"+6 a=b\n",
        b" 6 a=b\n",
        b"6 abc\n",
        b"6 =bc\n",
        b"6 a=bx",
        b"6 a=b\n\0\0\0",
        b"99999999999999999999999 a=b\n",
        b"18446744073709551615 a=b\n",
        b"1 a=b\n",
        b"2 a=b\n",
        b"3 \n",
    ] {
        refused_for(raw(data), "malformed pax record");
    }
    for (records, rule) in [
        (&[("path", "")][..], "is empty"),
        (&[("linkpath", "")], "is empty"),
        (&[("path", "a\0b")], "NUL"),
        (&[("path", "a"), ("path", "a")], "given twice"),
        (&[("size", "0"), ("size", "0")], "given twice"),
        (&[("mtime", "0"), ("mtime", "0")], "given twice"),
        (&[("linkpath", "a")], "is no link"),
    ] {
        refused_for(RawTar::new().pax(b'x', records).file("f", b""), rule);
    }
    for key in ["path", "linkpath", "size", "mtime"] {
        let tar = RawTar::new().pax(b'g', &[(key, "1")]).file("f", b"");
        refused_for(tar, "global pax record");
    }
}

#[test]
fn t4_malformed_long_names() {
    let long = |flag: u8, data: &[u8]| RawTar::new().entry(flag, "l", data).file("f", b"");
    refused_for(long(b'L', b""), "without data");
    refused_for(long(b'L', b"\0"), "empty");
    refused_for(long(b'L', b"a\0b"), "behind its end");
    refused_for(long(b'K', b"a\0"), "is no link");
}

#[test]
fn t4_repeated_and_mixed_extensions() {
    let pax = RawTar::new().pax(b'x', &[("comment", "1")]);
    let name = RawTar::new().entry(b'L', "l", b"a\0");
    let link = RawTar::new().entry(b'K', "l", b"a\0");
    refused_for(
        pax.clone().pax(b'x', &[("comment", "2")]).file("f", b""),
        "two pax headers",
    );
    refused_for(
        pax.clone().pax(b'g', &[("comment", "2")]).file("f", b""),
        "global pax header",
    );
    refused_for(
        name.clone().entry(b'L', "l", b"a\0").file("f", b""),
        "two long names",
    );
    refused_for(
        link.clone().entry(b'K', "l", b"a\0").file("f", b""),
        "two long link",
    );
    for flag in [b'L', b'K'] {
        refused_for(
            pax.clone().entry(flag, "l", b"a\0").file("f", b""),
            "pax and GNU",
        );
        let gnu = RawTar::new().entry(flag, "l", b"a\0");
        refused_for(
            gnu.pax(b'x', &[("comment", "1")]).file("f", b""),
            "pax and GNU",
        );
    }
}

/// The `tar` crate splits pax data at newlines: it would not see such a path, or see another one.
#[test]
fn t4_newlines_in_pax_records() {
    let with = |key: &str, value: &str| RawTar::new().pax(b'x', &[(key, value)]).file("f", b"");
    refused_for(with("path", "a\nb"), "newline");
    refused_for(with("comment", "x\n10 path=b"), "within another");
    refused_for(
        with("SCHILY.xattr.user.x", "\n10 size=99\n"),
        "within another",
    );
    assert_eq!(one(with("comment", "two\nlines = fine\n")).path, b"f");
}

/// The `tar` crate takes such a header for that of a file, everybody else for an extension.
#[test]
fn t4_extensions_in_headers_without_a_version() {
    for flag in [b'x', b'g', b'L', b'K'] {
        for magic in [b"ustar\0\0\0", &[0; 8]] {
            let data = record("path", "other");
            let header = RawHeader::new(flag, b"e", data.len() as u64).field(257, magic);
            let tar = RawTar::new().header(header).data(data.as_bytes());
            refused_for(tar.file("f", b""), "neither a ustar nor a GNU header");
        }
    }
    let data = record("path", "other");
    let gnu = RawHeader::new(b'x', b"e", data.len() as u64).field(257, b"ustar  \0");
    let tar = RawTar::new().header(gnu).data(data.as_bytes());
    assert_eq!(one(tar.file("f", b"")).path, b"other");
}

#[test]
fn t4_dangling_extensions() {
    let extensions = [
        RawTar::new().pax(b'x', &[("path", "p")]),
        RawTar::new().entry(b'L', "l", b"a\0"),
        RawTar::new().entry(b'K', "l", b"a\0"),
    ];
    for tar in extensions {
        refused_for(tar.clone(), "no entry follows");
        let error = index(&tar.0).unwrap_err();
        assert!(error.to_string().contains("extension headers"), "{error}");
    }
}

#[test]
fn t4_oversized_extensions() {
    let limit = limits::MAX_TAR_EXTENSION_BYTES as usize;
    let comment = |len: usize| "c".repeat(len - record("comment", "").len() - 3);
    for flag in [b'x', b'g'] {
        let good = RawTar::new()
            .pax(flag, &[("comment", &comment(limit))])
            .file("f", b"");
        assert_eq!(one(good).path, b"f");
        let bad = RawTar::new()
            .pax(flag, &[("comment", &comment(limit + 1))])
            .file("f", b"");
        refused_for(bad, "the limit is 65536");
    }
    for flag in [b'x', b'g', b'L', b'K'] {
        let bad = RawTar::new().header(RawHeader::new(flag, b"l", (8 << 30) - 1));
        refused_for(bad, "the limit is 65536");
    }
    let path = |n: usize| {
        RawTar::new()
            .pax(b'x', &[("path", &"p".repeat(n))])
            .file("f", b"")
    };
    assert_eq!(
        one(path(limits::MAX_PATH_BYTES)).path.len(),
        limits::MAX_PATH_BYTES
    );
    refused_for(path(limits::MAX_PATH_BYTES + 1), "the limit is 4095");
}

#[test]
fn t5_sparse_entries() {
    let gnu = RawHeader::new(b'S', b"f", 512).field(257, b"ustar  \0");
    refused_for(RawTar::new().header(gnu).data(&[0; 512]), "sparse");
    for key in [
        "GNU.sparse.major",
        "GNU.sparse.map",
        "GNU.sparse.size",
        "SCHILY.realsize",
    ] {
        for flag in [b'x', b'g'] {
            let tar = RawTar::new().pax(flag, &[(key, "1")]).file("f", b"");
            refused_for(tar, "sparse");
        }
    }
}

#[test]
fn t6_an_entry_larger_than_the_archive() {
    let declared = RawTar::new().header(file((8 << 30) - 1));
    assert_eq!(declared.0.len(), 512);
    let error = index(&declared.0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!(
        error.to_string(),
        "entry \"f\": needs 8589934592 bytes, but the archive ends after 0"
    );
}

#[test]
fn refuses_what_readers_take_for_different_kinds() {
    for tar in [
        RawTar::new().file("d/", b""),
        RawTar::new().entry(0, "d/", b""),
        RawTar::new().pax(b'x', &[("path", "d/")]).file("d", b""),
        RawTar::new()
            .pax(b'x', &[("path", "d")])
            .entry(0, "d/", b""),
    ] {
        refused_for(tar, "like a directory's");
    }
    // A name cut to 100 bytes by Python's writer.
    let cut = RawTar::new().pax(b'x', &[("path", "d/x")]).file("d/", b"");
    assert_eq!(one(cut).path, b"d/x");
    for flag in *b"123456" {
        let header = RawHeader::new(flag, b"n", 512).link("t");
        refused_for(RawTar::new().header(header).data(&[0; 512]), "is no file");
    }
    for flag in *b"12" {
        refused_for(RawTar::new().entry(flag, "n", b""), "without a target");
    }
    for flag in *b"MVDN" {
        refused_for(RawTar::new().entry(flag, "n", b""), "multi-volume");
    }
    for flag in *b"X8AZ\x01" {
        refused_for(RawTar::new().entry(flag, "n", b""), "unknown entry type");
    }
}

#[test]
fn refuses_prefixes_that_only_some_readers_see() {
    for magic in [b"ustar  \0", b"ustar\0\0\0", &[0; 8]] {
        let header = file(0).field(257, magic).field(345, b"p");
        refused_for(RawTar::new().header(header), "no ustar header");
    }
    refused_for(RawTar::new().header(file(0).field(508, b"tar\0")), "star");
    refused_for(
        RawTar::new().header(file(0).field(257, b"USTAR\x0000")),
        "neither",
    );
}

#[test]
fn refuses_a_lone_zero_block() {
    let tar = RawTar::new().file("a", b"").data(&[0; 512]).file("b", b"");
    refused_for(tar, "data after the zero block");
}

#[test]
fn names_in_messages_are_short_and_printable() {
    let path = format!("\x1b[2J{}", "x".repeat(1000));
    let message = refused(
        RawTar::new()
            .pax(b'x', &[("path", &path), ("size", "5")])
            .file("f", b""),
    );
    assert!(message.starts_with("entry \"\\u{1b}[2Jxxx"), "{message}");
    assert!(
        message.len() < 400 && !message.contains('\x1b'),
        "{message}"
    );
}
