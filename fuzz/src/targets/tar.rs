//! Tar headers.

use super::super::forge::{Header, Tar, record};

pub mod outer_tar {
    use super::*;
    use modeloci::tar::{BLOCK, Entry, EntryKind, Members, outer};

    /// An archive that we accept lies within its bytes, is the same to us as a stream, and every
    /// entry of it is what the `tar` crate finds there, as far as that goes along.
    pub fn run(data: &[u8]) {
        let read = |buf: &mut [u8], offset: u64| {
            let start = usize::try_from(offset).expect("an offset within the archive");
            buf.copy_from_slice(&data[start..start + buf.len()]);
            Ok(())
        };
        let streamed = members(data);
        let Ok(entries) = outer::index(data.len() as u64, read) else {
            return;
        };
        let streamed = streamed.expect("what is an archive is one as a stream");
        assert_eq!(streamed.len(), entries.len());
        for (entry, (streamed, bytes)) in entries.iter().zip(&streamed) {
            assert_eq!(entry, streamed);
            assert_eq!(entry.data_offset % BLOCK, 0);
            let start = entry.data_offset as usize;
            assert!(*bytes == data[start..start + entry.size as usize]);
        }
        compare(&entries, data);
    }

    /// The members of a tar with their bytes.
    fn members(data: &[u8]) -> modeloci::Result<Vec<(Entry, Vec<u8>)>> {
        let mut members = Members::new(data, "layer");
        let mut found = Vec::new();
        while let Some(entry) = members.next_member()? {
            let (mut bytes, mut buf) = (Vec::new(), [0; 700]);
            loop {
                match members.read_data(&mut buf)? {
                    0 => break,
                    n => bytes.extend_from_slice(&buf[..n]),
                }
            }
            assert_eq!(bytes.len() as u64, entry.size);
            found.push((entry, bytes));
        }
        members.finish()?;
        Ok(found)
    }

    /// A name without the zeros that end it: of a GNU long name the crate drops one alone.
    fn text(name: &[u8]) -> &[u8] {
        let end = name
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        &name[..end]
    }

    fn compare(ours: &[Entry], data: &[u8]) {
        let mut archive = ::tar::Archive::new(data);
        let mut ours = ours.iter();
        for theirs in archive.entries().expect("entries") {
            // What it refuses, it does not take differently.
            let Ok(mut theirs) = theirs else { return };
            if theirs.header().entry_type() == ::tar::EntryType::XGlobalHeader {
                continue;
            }
            let ours = ours.next().expect("no entry beyond ours");
            assert_eq!(ours.path, text(&theirs.path_bytes()), "path");
            assert_eq!(ours.size, theirs.size(), "size");
            assert_eq!(ours.data_offset, theirs.raw_file_position(), "place");
            let kind = theirs.header().entry_type();
            let expected = match ours.kind {
                EntryKind::File => kind.is_file() || kind.is_contiguous(),
                EntryKind::Directory => kind.is_dir() || ours.path.ends_with(b"/"),
                EntryKind::Symlink => kind.is_symlink(),
                EntryKind::HardLink => kind.is_hard_link(),
                EntryKind::Special => {
                    kind.is_fifo() || kind.is_block_special() || kind.is_character_special()
                }
            };
            assert!(expected, "{:?} is {kind:?}", ours.kind);
            if matches!(ours.kind, EntryKind::Symlink | EntryKind::HardLink) {
                let link = theirs.link_name_bytes().expect("a link");
                assert_eq!(ours.link, text(&link), "link");
            }
            if let Ok(mode) = theirs.header().mode() {
                assert_eq!(ours.mode & 0o7777, mode & 0o7777, "mode");
            }
            let stated = theirs.pax_extensions().ok().flatten();
            let stated = stated
                .is_some_and(|mut all| all.any(|e| e.is_ok_and(|e| e.key_bytes() == b"mtime")));
            if !stated && let Ok(mtime) = theirs.header().mtime() {
                assert_eq!(ours.mtime, mtime as i64, "mtime");
            }
        }
        assert!(ours.next().is_none(), "an entry that tar does not find");
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let long = "d/".repeat(80) + "name";
        let big = &mut [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        vec![
            Tar::new()
                .file("a", b"some bytes")
                .file("b/c", &[7; 1000])
                .end(),
            Tar::new().file(&long, b"pax path").end(),
            Tar::new()
                .extension(b'L', format!("{long}\0").as_bytes())
                .extension(b'K', b"target\0")
                .entry(Header::file("short", 0).kind(b'2').link("t"), b"")
                .end(),
            Tar::new()
                .entry(Header::file("dir/", 0).kind(b'5'), b"")
                .entry(Header::file("blobs/x", 0).kind(b'1').link("dir/y"), b"")
                .entry(Header::file("fifo", 0).kind(b'6'), b"")
                .end(),
            Tar::new()
                .pax("size", "5")
                .entry(Header::file("five", 0), b"")
                .raw(&[0; 512])
                .end(),
            Tar::new()
                .entry(Header::file("base256", 0).put(124, big), b"12345")
                .end(),
            Tar::new()
                .extension(b'g', record("comment", "all of them").as_bytes())
                .extension(
                    b'x',
                    (record("mtime", "7.5") + &record("linkpath", "l") + &record("uid", "0"))
                        .as_bytes(),
                )
                .entry(Header::file("link", 0).kind(b'2').link("k"), b"")
                .file("last", b"!")
                .end(),
            Tar::new()
                .entry(Header::file("old", 3).put(257, &[0; 8]), b"v7!")
                .end(),
            Tar::new()
                .entry(Header::file("gnu", 3).put(257, b"ustar  \0"), b"gnu")
                .end(),
            Tar::new()
                .entry(Header::file("rest", 1).put(345, b"prefix"), b"p")
                .end(),
        ]
    }
}
