#![allow(clippy::unwrap_used)]

use modeloci_test_support::random::Random;

use super::*;
use crate::error::ErrorKind;
use crate::tar::raw::{RawHeader, RawTar};
use crate::tar::write::file_header;

/// A stream that gives one byte at a time, and is interrupted before each.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buf.len().min(1);
        self.0.read(&mut buf[..len])
    }
}

/// A stream that fails at its end.
struct Failing<'a>(&'a [u8], fn() -> io::Error);

impl Read for Failing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err((self.1)()),
            n => Ok(n),
        }
    }
}

fn sample() -> RawTar {
    RawTar::new()
        .entry(b'5', "d", b"")
        .file("d/a", &[7; 1000])
        .file("b", b"end")
}

fn paths(input: impl Read) -> Result<Vec<String>> {
    let mut members = Members::new(input, "layer");
    let mut out = Vec::new();
    while let Some(entry) = members.next_member()? {
        out.push(String::from_utf8(entry.path).unwrap());
    }
    members.finish()?;
    Ok(out)
}

#[test]
fn r4_interruptions_and_short_reads() {
    let tar = sample().finish();
    let mut members = Members::new(Slow(&tar, false), "layer");
    assert_eq!(members.next_member().unwrap().unwrap().path, b"d");
    let entry = members.next_member().unwrap().unwrap();
    assert_eq!(
        (entry.size, entry.header_offset, entry.data_offset),
        (1000, 512, 1024)
    );
    let mut buf = [0; 600];
    assert_eq!(members.read_data(&mut buf).unwrap(), 1);
    // What was not read is skipped.
    assert_eq!(members.next_member().unwrap().unwrap().path, b"b");
    assert_eq!(members.read_data(&mut []).unwrap(), 0);
    let mut data = Vec::<u8>::new();
    loop {
        match members.read_data(&mut buf).unwrap() {
            0 => break,
            n => data.extend(&buf[..n]),
        }
    }
    assert_eq!(data, b"end");
    assert!(members.next_member().unwrap().is_none());
    assert_eq!(members.read_data(&mut buf).unwrap(), 0);
    members.finish().unwrap();
}

#[test]
fn t1_a_stream_cut_anywhere() {
    let tar = sample().finish();
    let end = tar.len() - 1024;
    for len in 0..=tar.len() {
        let read = paths(&tar[..len]);
        // Between members, an end of the stream is an end of the archive; in front of padding, too.
        let between = [0, 512, 2048, end, end + 512, end + 1024];
        let clean = between.contains(&len) || [2024, 2563].contains(&len);
        match read {
            Ok(_) => assert!(clean, "{len}"),
            Err(error) => {
                assert!(!clean, "{len}: {error}");
                assert_eq!(error.kind(), ErrorKind::Malformed);
            }
        }
    }
}

#[test]
fn t4_an_extension_at_the_end_of_the_stream() {
    let tar = sample().pax(b'x', &[("path", "p")]).0;
    let error = paths(&tar[..]).unwrap_err();
    assert!(error.to_string().starts_with("layer: "), "{error}");
    assert!(error.to_string().contains("extension headers"), "{error}");
}

#[test]
fn t6_a_declared_size_allocates_nothing() {
    let tar = RawTar::new()
        .header(RawHeader::new(b'0', b"f", (8 << 30) - 1))
        .0;
    let mut members = Members::new(&tar[..], "layer");
    assert_eq!(members.next_member().unwrap().unwrap().size, (8 << 30) - 1);
    assert_eq!(
        members.next_member().unwrap_err().kind(),
        ErrorKind::Malformed
    );
}

#[test]
fn t9_only_zeros_follow_the_end() {
    let mut tar = sample().finish();
    tar.resize(tar.len() + 10_000, 0);
    assert_eq!(paths(&tar[..]).unwrap(), ["d", "d/a", "b"]);
    tar.push(1);
    let error = paths(&tar[..]).unwrap_err();
    assert!(error.to_string().contains("data after the end"), "{error}");
    let endless = sample().finish();
    let error = paths(endless.chain(io::repeat(0))).unwrap_err();
    assert!(
        error.to_string().contains("16777216 bytes follow"),
        "{error}"
    );
}

#[test]
fn l12_headers_without_a_file_end_at_a_bound() {
    let most = limits::MAX_TAR_OVERHEAD_BYTES as usize / 512;
    let directory = RawHeader::new(b'5', b"d/", 0).finish();
    let comment = RawTar::new()
        .pax(b'g', &[("comment", &"x".repeat(60_000))])
        .0;
    let file = RawTar::new().file("f", b"data").0;
    let end = [0; 1024];
    // Before the file, behind it, and both: its own header and the end count, too.
    for (before, behind) in [(most - 1, 0), (0, most - 2), (most - 1, most - 2)] {
        let (before, behind) = (directory.repeat(before), directory.repeat(behind));
        let tar = [&before[..], &file, &behind, &end].concat();
        assert!(paths(&tar[..]).is_ok());
        for tar in [
            [&directory[..], &directory, &before, &file].concat(),
            [&file[..], &directory, &behind, &end, &directory].concat(),
        ] {
            if let Ok(paths) = paths(&tar[..]) {
                assert!(paths.len() < most, "{} members", paths.len());
            }
        }
    }
    // Without end.
    for endless in [&directory[..], &comment] {
        for front in [&file[..], &[]] {
            let stream = front.chain(Endless(endless, 0));
            let error = paths(stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed);
            assert!(error.to_string().contains("belong to no file"), "{error}");
        }
    }
    let zeros = file.chain(io::repeat(0));
    let error = paths(zeros).unwrap_err();
    assert!(error.to_string().contains("follow the end"), "{error}");
}

/// The same bytes over and over.
struct Endless<'a>(&'a [u8], usize);

impl Read for Endless<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (&self.0[self.1..]).read(buf)?;
        self.1 = (self.1 + n) % self.0.len();
        Ok(n)
    }
}

#[test]
fn l8_a_9_gib_member_is_skipped_in_bounded_memory() {
    let size = 9u64 << 30;
    let head = file_header("big", size, 0o644, 0);
    // Nothing of that size is read: only that the header is understood.
    let mut members = Members::new(&head[..], "layer");
    assert_eq!(members.next_member().unwrap().unwrap().size, size);
}

#[test]
fn an_error_stays() {
    let mut tar = sample().0;
    tar[1536 + 700] = 1; // in the data
    tar[2048] ^= 1; // in the last header
    let mut members = Members::new(&tar[..], "layer");
    members.next_member().unwrap();
    members.next_member().unwrap();
    let first = members.next_member().unwrap_err().to_string();
    assert_eq!(members.next_member().unwrap_err().to_string(), first);
    assert_eq!(
        members.read_data(&mut [0; 9]).unwrap_err().to_string(),
        first
    );
    assert_eq!(members.finish().unwrap_err().to_string(), first);
}

#[test]
fn errors_of_the_stream_keep_their_kind() {
    let tar = &sample().0[..1500];
    for (make, kind, message) in [
        (
            (|| io::Error::other(Error::corrupt("chunk 3", "is not its digest")))
                as fn() -> io::Error,
            ErrorKind::Corrupt,
            "chunk 3: is not its digest",
        ),
        (
            || io::Error::new(io::ErrorKind::InvalidData, "bad code"),
            ErrorKind::Corrupt,
            "layer: cannot be decoded: bad code",
        ),
        (
            || io::Error::new(io::ErrorKind::PermissionDenied, "no"),
            ErrorKind::Environment,
            "cannot read layer: no",
        ),
    ] {
        let error = paths(Failing(tar, make)).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
    }
}

/// Bytes changed at random: never a panic, and what is read does not depend on how the stream comes.
#[test]
fn t0_a_damaged_stream_is_read_alike_in_pieces_and_at_once() {
    let mut random = Random(3);
    let mut random = |n| random.below(n);
    let seed = sample().finish();
    let mut accepted = 0;
    for _ in 0..4_000 {
        let mut tar = seed.clone();
        for _ in 0..=random(3) {
            let block = random(tar.len() / 512) * 512;
            let at = (block + random(512)).min(tar.len() - 1);
            tar[at] = [b'0', b'7', b' ', 0, 0x80, 0xff, b'/', b'.', b'x', b'L'][random(10)];
            if random(2) == 0 {
                // A checksum that is right again.
                tar[block + 148..block + 156].fill(b' ');
                let sum: u32 = tar[block..block + 512].iter().map(|b| u32::from(*b)).sum();
                tar[block + 148..block + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let read = |input: &mut dyn Read| {
            let mut members = Members::new(input, "layer");
            let mut out = Vec::new();
            while let Some(entry) = members.next_member().map_err(|e| e.to_string())? {
                out.push((entry.path, entry.size, entry.data_offset));
            }
            members.finish().map_err(|e| e.to_string())?;
            Ok::<_, String>(out)
        };
        let at_once = read(&mut &tar[..]);
        assert_eq!(read(&mut Slow(&tar, false)), at_once);
        accepted += usize::from(at_once.is_ok());
    }
    assert!(accepted > 50, "{accepted}");
}
