//! Indexes that are kept between runs: what they save, and when they are not used.

use super::*;

type Pack = fn(&[u8]) -> Vec<u8>;

struct Kept {
    dir: tempfile::TempDir,
    data: Vec<u8>,
    blob: Vec<u8>,
}

impl Kept {
    fn new(pack: Pack) -> Kept {
        let data = sample(300_000);
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Kept {
            dir,
            blob: pack(&tar_of(&data)),
            data,
        }
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("indexes")
    }

    fn open(&self) -> (Arc<Fickle>, ForeignFile) {
        open_fickle(&self.blob, 0, Some(self.dir()))
    }

    /// Reads 10 bytes anew; true when that took no pass over the blob.
    fn is_used(&self) -> bool {
        let (source, file) = self.open();
        assert!(file.read_at(200_000, 10).unwrap() == self.data[200_000..200_010]);
        file.finish().unwrap();
        source.read_bytes.load(Ordering::SeqCst) < self.blob.len() / 2
    }

    fn index(&self) -> PathBuf {
        let hex = Digest::sha256(&self.blob).hex();
        self.dir().join(format!("seek-tables/sha256-{hex}.idx"))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_run_reads_at_random_at_once_and_still_verifies() {
    let packs: [Pack; 4] = [
        |t| t.to_vec(),
        |t| gzip(t, 6),
        |t| t.chunks(9_000).flat_map(|c| gzip(c, 1)).collect(),
        |t| t.chunks(9_000).flat_map(|c| zstd(c, 3)).collect(),
    ];
    for pack in packs {
        let kept = Kept::new(pack);
        assert!(!kept.is_used(), "there is none yet");
        assert_eq!((mode(&kept.dir()), mode(&kept.index())), (0o700, 0o600));
        assert!(kept.is_used());
        let (_, file) = kept.open();
        assert_reads(&file, &kept.data, "with an index");

        let (source, file) = kept.open();
        let half = kept.blob.len() / 2;
        for byte in &mut source.data.write().unwrap()[half..] {
            *byte ^= 1;
        }
        assert_eq!(
            file.read_at(290_000, 10).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert!(file.read_at(0, 10).unwrap() == kept.data[..10]);
    }
}

#[test]
fn the_run_that_wrote_an_index_reads_on_from_it() {
    let kept = Kept::new(|t| gzip(t, 6));
    let (_, file) = kept.open();
    assert_reads(&file, &kept.data, "from the new index");
    assert!(kept.index().exists());
    fs::remove_file(kept.index()).unwrap();
    assert!(
        file.read_at(0, 300_000).unwrap() == kept.data,
        "an unlinked index still serves"
    );
}

#[test]
fn every_damaged_byte_is_noticed() {
    let kept = Kept::new(|t| gzip(t, 6));
    assert!(!kept.is_used());
    let good = fs::read(kept.index()).unwrap();
    let step = good.len() / 60 + 1;
    for at in (0..good.len())
        .step_by(step)
        .chain([8, 9, 20, 152, 160, 184, good.len() - 1])
    {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(kept.index(), &bad).unwrap();
        assert!(!kept.is_used(), "byte {at}");
        assert!(
            fs::read(kept.index()).unwrap() == good,
            "written anew after byte {at}"
        );
    }
    for len in [0, 1, 191, 192, 300, good.len() - 1] {
        fs::write(kept.index(), &good[..len]).unwrap();
        assert!(!kept.is_used(), "cut to {len}");
    }
    fs::write(kept.index(), [&good[..], b"x"].concat()).unwrap();
    assert!(!kept.is_used(), "one byte more");
    assert!(kept.is_used());
}

#[test]
fn an_index_that_was_forged_breaks_nothing() {
    // With a right checksum, as only someone who can write to the directory could make one.
    let kept = Kept::new(|t| gzip(t, 6));
    assert!(!kept.is_used());
    let good = fs::read(kept.index()).unwrap();
    let blocks = kept.blob.len().div_ceil(SMALL.packed_block as usize);
    let spans = 192 + 32 * blocks;
    for at in [
        192,
        spans + 64,
        spans + 72,
        spans + 80,
        spans + 88,
        spans + 92,
        spans + 96,
    ] {
        let mut bad = good.clone();
        for row in 0..4 {
            bad[at + row * 64] ^= 4;
        }
        let body = bad.len() - 32;
        let sum = Digest::sha256(&bad[..body]);
        bad[body..].copy_from_slice(sum.as_bytes());
        fs::write(kept.index(), &bad).unwrap();
        let (_, file) = kept.open();
        for offset in (0..300_000).step_by(20_000) {
            if let Ok(bytes) = file.read_at(offset, 20_000) {
                assert_eq!(bytes.len(), 20_000, "row byte {at}");
            }
        }
    }
}

#[test]
fn one_that_others_could_have_written_is_not_used() {
    let kept = Kept::new(|t| gzip(t, 6));
    assert!(!kept.is_used());
    for bits in [0o620, 0o602] {
        fs::set_permissions(kept.index(), fs::Permissions::from_mode(bits)).unwrap();
        assert!(!kept.is_used(), "file mode {bits:o}");
        assert!(kept.is_used(), "written anew");
    }
    for bits in [0o720, 0o702, 0o777] {
        fs::set_permissions(kept.dir(), fs::Permissions::from_mode(bits)).unwrap();
        assert!(!kept.is_used(), "directory mode {bits:o}");
        assert!(
            !kept.is_used(),
            "nothing is kept in such a directory either"
        );
    }
    fs::set_permissions(kept.dir(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(kept.is_used());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(kept.index(), Some(1), None).unwrap();
        assert!(!kept.is_used(), "another user's file");
        std::os::unix::fs::chown(kept.dir(), Some(1), None).unwrap();
        assert!(!kept.is_used(), "another user's directory");
    }
}

#[test]
fn a_link_or_fifo_in_its_place_is_not_used() {
    let kept = Kept::new(|t| gzip(t, 6));
    assert!(!kept.is_used());
    let elsewhere = kept.dir.path().join("elsewhere");
    fs::rename(kept.index(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, kept.index()).unwrap();
    assert!(!kept.is_used());
    assert!(kept.is_used(), "the link was replaced");
    fs::remove_file(kept.index()).unwrap();
    let fifo = kept.index();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    assert!(!kept.is_used());
}

#[test]
fn one_of_another_layer_is_not_used() {
    let kept = Kept::new(|t| gzip(t, 6));
    assert!(!kept.is_used());
    let other = Kept {
        blob: gzip(&tar_of(&kept.data), 9),
        data: kept.data.clone(),
        dir: kept.dir,
    };
    let hex = Digest::sha256(&gzip(&tar_of(&other.data), 6)).hex();
    let of_first = other.dir().join(format!("seek-tables/sha256-{hex}.idx"));
    fs::rename(of_first, other.index()).unwrap();
    assert!(!other.is_used());
}

/// An index that a run for one archive kept is there for all that name its blob. What it cannot know is
/// what they say of the first bytes: those of an archive that changes while it is mounted are compared
/// with what was shown, with an index and without.
#[test]
fn l5_l11_an_index_of_another_archive_replaces_no_comparison() {
    let packs: [Pack; 3] = [
        |tar| tar.to_vec(),
        |tar| gzip(tar, 6),
        |tar| tar.chunks(9_000).flat_map(|c| zstd(c, 3)).collect(),
    ];
    for pack in packs {
        let kept = Kept::new(pack);
        assert!(!kept.is_used());
        let honest = fs::read(kept.index()).unwrap();
        // Taken for a file of another name, mode or time, and honest when it is read.
        let other = "other.bin";
        let size = kept.data.len() as u64;
        for (name, header) in [
            (other, file_header(other, size, 0o755, 1_700_000_000)),
            (NAME, file_header(NAME, size, 0o644, 1_700_000_000)),
            (NAME, file_header(NAME, size, 0o755, 1_700_000_001)),
        ] {
            let mut tar = tar_of(&kept.data);
            tar[..header.len()].copy_from_slice(&header);
            let mut shown = pack(&tar);
            // Only the look needs it to be as long.
            shown.resize(kept.blob.len(), 0);
            let source = Fickle::new(&shown);
            let spec = LayerSpec {
                path: EntryPath::new(name).unwrap(),
                ..spec_of(&kept.blob)
            };
            let context = context(0, Some(kept.dir()));
            let blob: Arc<dyn ReadAt> = Arc::<Fickle>::clone(&source);
            let file = ForeignFile::open(blob, spec, context, SMALL).unwrap();
            source.data.write().unwrap().clone_from(&kept.blob);
            let error = file.read_at(0, 10).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            assert!(fs::read(kept.index()).unwrap() == honest);
        }
        // A tar that another archive takes for the file itself, and looks like one for a moment.
        let mut raw = spec_of(&kept.blob);
        raw.reading = Reading::File;
        let source = Fickle::new(&kept.blob);
        let blob: Arc<dyn ReadAt> = Arc::<Fickle>::clone(&source);
        let file = ForeignFile::open(blob, raw, context(0, Some(kept.dir())), SMALL).unwrap();
        assert!(file.read_at(0, 10).unwrap() == kept.blob[..10]);
        let mut shown = kept.blob.clone();
        shown[..512].fill(b'x');
        let source = Fickle::new(&shown);
        let mut spec = spec_of(&kept.blob);
        stated(&mut spec).media_type = "application/vnd.oci.image.layer.v1.tar".into();
        let blob: Arc<dyn ReadAt> = Arc::<Fickle>::clone(&source);
        let file = ForeignFile::open(blob, spec, context(0, Some(kept.dir())), SMALL).unwrap();
        source.data.write().unwrap().clone_from(&kept.blob);
        let error = file.read_at(0, 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "as a file: {error}");
    }
}

#[test]
fn no_index_no_file() {
    let kept = Kept::new(|t| zstd(t, 3));
    assert!(!kept.is_used());
    assert!(
        !kept.index().exists(),
        "what one long frame holds is not kept"
    );
    assert!(!kept.is_used());
}

/// An index whose spans lie elsewhere than those of a new pass, as another version might choose
/// them: what was decoded by one is no answer for the other.
#[test]
fn l9_spans_of_an_index_and_of_a_pass_do_not_share_cached_bytes() {
    let kept = Kept::new(|tar| gzip(tar, 6));
    let open = |span| {
        let tuning = Tuning { span, ..SMALL };
        let context = context(1 << 20, Some(kept.dir()));
        let blob = Fickle::new(&kept.blob);
        ForeignFile::open(blob, spec_of(&kept.blob), context, tuning).unwrap()
    };
    assert!(open(40_000).read_at(0, 10).unwrap() == kept.data[..10]);
    let file = open(30_000);
    assert!(file.read_at(0, usize::MAX).unwrap() == kept.data);
    assert_eq!(file.verify(&[]).unwrap().sha256, Digest::sha256(&kept.data));
    assert!(file.read_at(0, usize::MAX).unwrap() == kept.data);
}

#[test]
fn who_waits_decodes_what_comes_next() {
    let packs: [Pack; 3] = [|tar| gzip(tar, 6), |tar| zstd(tar, 1), <[u8]>::to_vec];
    for pack in packs {
        let kept = Kept::new(pack);
        kept.open().1.verify(&[]).unwrap();
        let (_, file) = open_fickle(&kept.blob, 4 << 20, Some(kept.dir()));
        let known = file.stream().known().unwrap();
        let first = file
            .stream()
            .part(&known, file.content().member.start)
            .unwrap();
        let decoded = || {
            let stats = &file.stream().blob.context.stats;
            stats.chunks_decoded.load(Ordering::Relaxed)
        };
        let before = decoded();
        while file.stream().decode_next(&known, first) {}
        let mut next = first;
        let mut ahead = 0;
        while let Some(unit) =
            file.stream()
                .known_part(&known, known.plan(&file.stream().blob).unwrap(), next.end)
            && ahead < cores() as u64
        {
            assert!(
                file.stream()
                    .blob
                    .context
                    .cache
                    .get(known.key(unit.number))
                    .is_some()
            );
            (next, ahead) = (unit, ahead + 1);
        }
        assert!(ahead > 0);
        assert_eq!(decoded() - before, ahead, "as many as there are processors");
        let last = file
            .stream()
            .part(&known, file.content().plan().end - 1)
            .unwrap();
        assert!(
            !file.stream().decode_next(&known, last),
            "there is nothing behind it"
        );
        let mut read = Vec::new();
        while read.len() < kept.data.len() {
            read.extend_from_slice(&file.read_at(read.len() as u64, 100_000).unwrap());
        }
        assert!(read == kept.data);
        // What would push out what is wanted now is left to its reader.
        let (_, file) = open_fickle(&kept.blob, 10_000, Some(kept.dir()));
        let known = file.stream().known().unwrap();
        assert!(!file.stream().decode_next(&known, first));
    }
}

/// What becomes of it while a layer is read from it, too.
#[test]
fn r17_an_index_that_goes_bad_while_it_is_used_is_made_anew() {
    let packs: [Pack; 2] = [
        |t| gzip(t, 6),
        |t| t.chunks(9_000).flat_map(|c| zstd(c, 3)).collect(),
    ];
    use std::os::unix::fs::FileExt as _;
    type Spoil = fn(&fs::File);
    let spoils: [Spoil; 2] = [
        |file| file.set_len(0).unwrap(),
        |file| {
            let bytes = vec![7; file.metadata().unwrap().len() as usize];
            file.write_all_at(&bytes, 0).unwrap();
        },
    ];
    for pack in packs {
        for spoil in spoils {
            let kept = Kept::new(pack);
            kept.is_used();
            assert!(kept.is_used());
            let (source, file) = kept.open();
            assert!(file.read_at(200_000, 10).unwrap() == kept.data[200_000..200_010]);
            let before = source.read_bytes.load(Ordering::SeqCst);
            assert!(before < kept.blob.len() / 2, "the index is not used");
            spoil(&fs::File::options().write(true).open(kept.index()).unwrap());
            for at in [10, 100_000, 290_000, 50_000] {
                assert!(file.read_at(at, 10).unwrap() == kept.data[at as usize..][..10]);
            }
            file.finish().unwrap();
            // The next run has a good one again.
            kept.is_used();
            assert!(kept.is_used());
        }
    }
}

/// An index is a convenience: whatever call about it fails, the bytes are exact, and what is left is
/// a whole index or none.
#[test]
fn r17_every_call_about_an_index_fails() {
    use crate::files::faults::{Fault, Plan, Reach};
    use rustix::io::Errno;
    let packs: [Pack; 2] = [
        |t| t.to_vec(),
        |t| t.chunks(9_000).flat_map(|c| zstd(c, 3)).collect(),
    ];
    let faults = [
        (Fault::Fails(Errno::IO), Reach::Once),
        (Fault::Fails(Errno::NOSPC), Reach::Kind),
        (Fault::Fails(Errno::IO), Reach::All),
        (Fault::Fails(Errno::STALE), Reach::Once),
        (Fault::Fails(Errno::STALE), Reach::All),
        (Fault::Fails(Errno::INTR), Reach::Once),
        (Fault::Short, Reach::All),
    ];
    for pack in packs {
        for (fault, reach) in faults {
            for with_index in [false, true] {
                let mut hits = 0;
                loop {
                    let kept = Kept::new(pack);
                    if with_index {
                        assert!(!kept.is_used());
                    }
                    let plan = Plan::new(fault, reach, hits, &[]);
                    plan.run(|| {
                        let (_, file) = kept.open();
                        let bytes = file.read_at(200_000, 10).unwrap();
                        assert!(bytes == kept.data[200_000..200_010], "{plan:?}");
                        file.finish().unwrap();
                    });
                    let names = fs::read_dir(kept.dir().join("seek-tables"));
                    let temporary = names.into_iter().flatten().any(|entry| {
                        let name = entry.unwrap().file_name();
                        name.as_encoded_bytes().starts_with(b".tmp-")
                    });
                    assert!(!temporary || reach != Reach::Once, "{plan:?}");
                    // Whole, or not there: the next run says so by reading.
                    kept.is_used();
                    assert!(kept.is_used(), "{plan:?}");
                    if plan.hit().is_none() {
                        break;
                    }
                    hits += 1;
                }
                let least = if fault == Fault::Short { 1 } else { 15 };
                assert!(hits >= least, "{hits} calls");
            }
        }
    }
}
