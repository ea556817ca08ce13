//! Good layers of every producer, read at every place.

use modeloci_test_support::noise;

use super::*;

fn producers(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    use zlib_rs::Strategy;
    let mut all = vec![
        ("tar".into(), tar.to_vec()),
        ("gzip stored".into(), gzip(tar, 0)),
        ("gzip 1".into(), gzip(tar, 1)),
        ("gzip 6".into(), gzip(tar, 6)),
        ("gzip 9".into(), gzip(tar, 9)),
        ("gzip fixed".into(), gzip_with(tar, Strategy::Fixed)),
        ("gzip rle".into(), gzip_with(tar, Strategy::Rle)),
        ("gzip huffman".into(), gzip_with(tar, Strategy::HuffmanOnly)),
        ("libdeflate 1".into(), libdeflate(tar, 1)),
        ("libdeflate 12".into(), libdeflate(tar, 12)),
        (
            "members".into(),
            tar.chunks(70_001).flat_map(|c| gzip(c, 6)).collect(),
        ),
        (
            "small members".into(),
            tar.chunks(500).flat_map(|c| gzip(c, 6)).collect(),
        ),
        ("zstd 1, one frame".into(), zstd(tar, 1)),
        ("zstd 19, one frame".into(), zstd(tar, 19)),
        (
            "zstd frames".into(),
            tar.chunks(9_000).flat_map(|c| zstd(c, 3)).collect(),
        ),
        (
            "zstd long frames".into(),
            tar.chunks(100_000).flat_map(|c| zstd(c, 3)).collect(),
        ),
    ];
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let frames = tar
        .chunks(50_000)
        .flat_map(|c| [&zstd(c, 3)[..], skippable].concat());
    all.push(("zstd skippable".into(), frames.collect()));
    all
}

/// Programs of this machine, where they are installed.
fn programs(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let python = "import sys,zlib\n\
        c=zlib.compressobj(6,zlib.DEFLATED,31,9,int(sys.argv[1]))\n\
        o=sys.stdout.buffer;o.write(c.compress(sys.stdin.buffer.read()));o.write(c.flush())";
    let commands: [&[&str]; 14] = [
        &["gzip", "-1"],
        &["gzip", "-6"],
        &["gzip", "-9"],
        &["pigz", "-1"],
        &["pigz", "-b", "128"],
        &["pigz", "-9", "-i"],
        &["igzip", "-0"],
        &["igzip", "-3"],
        &["zstd", "-3"],
        &["zstd", "-19", "--long=27"],
        &["python3", "-c", python, "1"],
        &["python3", "-c", python, "2"],
        &["python3", "-c", python, "3"],
        &["python3", "-c", python, "4"],
    ];
    let run = |command: &&[&str]| {
        let name = [&command[..2], &command[command.len() - 1..]]
            .concat()
            .join(" ");
        Some((name, piped(command, tar)?))
    };
    commands.iter().filter_map(run).collect()
}

#[test]
fn every_producer_is_read_byte_for_byte() {
    let data = sample(600_000);
    let tar = tar_of(&data);
    for (name, blob) in producers(&tar).into_iter().chain(programs(&tar)) {
        let file = open_small(&blob);
        assert_reads(&file, &data, &name);
        let spans = file.stream().known().unwrap().frontier.span_count();
        match file.content().packaging {
            Packaging::Gzip => assert!(spans >= 13, "{name}: {spans} spans"),
            Packaging::Zstd => assert!(spans >= 5, "{name}: {spans} spans"),
            Packaging::Tar | Packaging::Raw => assert_eq!(spans, 0),
        }
    }
}

#[test]
fn attributes_come_from_the_layer_itself() {
    let blob = gzip(&tar_of(b"data"), 6);
    let file = open_small(&blob);
    let attr = file.content().member.attr;
    assert_eq!(
        (attr.size, attr.executable, attr.mtime),
        (4, true, 1_700_000_000)
    );
}

#[test]
fn l6_owner_and_set_id_bits_are_not_taken() {
    let mut tar = file_header(NAME, 4, 0o644, 0);
    let mut set = |at: usize, text: &[u8]| tar[at..at + text.len()].copy_from_slice(text);
    set(100, b"0006666\0"); // setuid, setgid, writable by all
    set(148, b"        ");
    let sum: u32 = tar[..512].iter().map(|&b| u32::from(b)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(b"data");
    tar.resize(1024, 0);
    tar.extend_from_slice(&END_OF_ARCHIVE);
    let file = open_small(&gzip(&tar, 6));
    assert!(!file.content().member.attr.executable);
    assert_eq!(file.read_at(0, 10).unwrap(), &b"data"[..]);
}

#[test]
fn l8_sizes_around_every_distance() {
    let span = SMALL.span as usize;
    let block = SMALL.plain_block as usize;
    let whole = SMALL.whole as usize;
    for around in [1, whole, block, span - 512, span, 2 * span] {
        for size in [around - 1, around, around + 1] {
            let data = sample(size);
            let tar = tar_of(&data);
            for blob in [tar.clone(), gzip(&tar, 6), zstd(&tar, 3)] {
                let file = open_small(&blob);
                assert_eq!(file.verify(&[]).unwrap().sha256, Digest::sha256(&data));
                assert!(file.read_at(0, size + 5).unwrap() == data, "{size}");
                let tail = file.read_at(size.saturating_sub(3) as u64, 9).unwrap();
                assert!(tail == data[size.saturating_sub(3)..], "{size}");
            }
        }
    }
}

#[test]
fn raw_files_are_served_as_they_are() {
    let data = sample(100_000);
    for mut spec in [spec_of(&data), spec_of(&data)] {
        spec.reading = Reading::File;
        let file = open_spec(&data, spec, SMALL).unwrap();
        assert_reads(&file, &data, "raw");
    }
    // A compressed file that holds no tar is the file, unless it is said to hold one.
    for blob in [
        gzip(&data, 6),
        zstd(&data, 3),
        [&b"\x1f\x8b"[..], &data[..]].concat(),
    ] {
        let mut spec = spec_of(&blob);
        stated(&mut spec).media_type = "application/vnd.oci.image.layer.v1.tar".into();
        assert_reads(&open_spec(&blob, spec, SMALL).unwrap(), &blob, "a file");
        assert!(open_spec(&blob, spec_of(&blob), SMALL).is_err());
    }
    assert_reads(&open_small(b""), b"", "empty");
}

#[test]
fn l13_a_file_that_is_an_archive_is_served_as_it_is() {
    let tar = tar_of(&sample(100_000));
    for blob in [tar.clone(), gzip(&tar, 6), zstd(&tar, 3)] {
        let mut spec = spec_of(&blob);
        spec.reading = Reading::File;
        assert_reads(&open_spec(&blob, spec, SMALL).unwrap(), &blob, "a file");
    }
}

#[test]
fn every_digest_algorithm_of_the_manifest_is_checked() {
    let data = sample(50_000);
    let blob = gzip(&tar_of(&data), 6);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
        let mut spec = spec_of(&blob);
        stated(&mut spec).digest = Digest::of(algorithm, &blob);
        assert_reads(
            &open_spec(&blob, spec.clone(), SMALL).unwrap(),
            &data,
            algorithm.name(),
        );
        stated(&mut spec).digest = Digest::of(algorithm, b"other");
        let file = open_spec(&blob, spec, SMALL).unwrap();
        assert_eq!(file.read_at(0, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn directories_before_the_file_and_long_names_are_read() {
    let name = format!("{}/{NAME}", vec!["component".repeat(9); 3].join("/"));
    let tar = tar_as(&name, b"data");
    let mut dir = file_header("dir/", 0, 0o755, 0);
    dir[156] = b'5';
    dir[148..156].copy_from_slice(b"        ");
    let sum: u32 = dir.iter().map(|&b| u32::from(b)).sum();
    dir[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let file = open_small(&gzip(&[dir, tar].concat(), 6));
    assert_eq!(file.read_at(0, 10).unwrap(), &b"data"[..]);
}

#[test]
fn opening_reads_only_the_first_kilobytes() {
    let blob = gzip(&tar_of(&sample(400_000)), 6);
    let (source, _file) = open_fickle(&blob, 0, None);
    let read = source.read_bytes.load(Ordering::SeqCst);
    assert!(read <= 10 << 10, "{read} bytes");
}

#[test]
fn a_later_read_costs_one_span() {
    let data = sample(600_000);
    for blob in [gzip(&tar_of(&data), 6), tar_of(&data)] {
        let (source, file) = open_fickle(&blob, 0, None);
        file.finish().unwrap();
        source.read_bytes.store(0, Ordering::SeqCst);
        let stats = &file.stream().blob.context.stats;
        let decoded = stats.chunks_decoded.load(Ordering::Relaxed);
        assert!(file.read_at(300_000, 10).unwrap() == data[300_000..300_010]);
        let read = source.read_bytes.load(Ordering::SeqCst) as u64;
        assert!(read <= SMALL.span + 2 * SMALL.packed_block, "{read} bytes");
        assert_eq!(stats.chunks_decoded.load(Ordering::Relaxed), decoded + 1);
    }
}

#[test]
fn r10_readers_of_a_cold_layer_share_one_pass_and_one_decode() {
    let data = sample(300_000);
    let blob = gzip(&tar_of(&data), 6);
    let (source, file) = open_fickle(&blob, 1 << 20, None);
    source.read_bytes.store(0, Ordering::SeqCst);
    let start = Barrier::new(200);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                start.wait();
                assert!(file.read_at(100_000, 5_000).unwrap() == data[100_000..105_000]);
            });
        }
    });
    file.finish().unwrap();
    let stats = &file.stream().blob.context.stats;
    let spans = file.stream().known().unwrap().frontier.span_count() as u64;
    assert_eq!(stats.chunks_decoded.load(Ordering::Relaxed), spans);
    let read = source.read_bytes.load(Ordering::SeqCst);
    assert!(
        read < 2 * blob.len() + 50_000,
        "one hash and one decode, {read} bytes"
    );
}

#[test]
fn small_files_need_no_second_decode() {
    let blob = gzip(&tar_of(&sample(900)), 6);
    let (source, file) = open_fickle(&blob, 1 << 20, None);
    file.read_at(0, 10).unwrap();
    let reads = source.reads.load(Ordering::SeqCst);
    assert!(file.read_at(0, 900).unwrap() == sample(900));
    assert_eq!(source.reads.load(Ordering::SeqCst), reads);
    assert!(
        file.stream()
            .blob
            .context
            .stats
            .cache_hits
            .load(Ordering::Relaxed)
            >= 1
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_range_of_any_layer(
        size in 1usize..200_000, kind in 0usize..17, span in 300u64..50_000,
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 0usize..60_000), 1..30),
    ) {
        let data = sample(size);
        let (name, blob) = producers(&tar_of(&data)).swap_remove(kind);
        let tuning = Tuning { span, packed_block: 512, frame: 2 * span as usize, ..SMALL };
        let file = open_spec(&blob, spec_of(&blob), tuning).unwrap();
        for (at, len) in ranges {
            let at = at.index(size);
            let end = size.min(at + len);
            prop_assert!(file.read_at(at as u64, len).unwrap() == data[at..end], "{name} at {at}");
        }
    }
}

/// Remembers the largest allocation per length that it was given to keep.
struct Counting(std::sync::Mutex<Vec<(usize, usize)>>);

impl crate::memory::limiter::Reclaim for Counting {
    fn reclaim(&self, _: u64) -> bool {
        false
    }
}

impl crate::memory::cache::ChunkCache for Counting {
    fn get(&self, _: ChunkKey) -> Option<Bytes> {
        None
    }

    fn insert(&self, _: ChunkKey, chunk: Bytes) {
        let length = chunk.len();
        let held = chunk
            .try_into_mut()
            .map_or(length, |bytes| bytes.capacity());
        self.0.lock().unwrap().push((length, held));
    }

    fn served(&self, _: ChunkKey, _: usize) {}

    fn used(&self) -> u64 {
        0
    }

    fn capacity(&self) -> u64 {
        0
    }
}

/// A cache counts lengths: a last span of a few bytes must not hold the window in front of it.
#[test]
fn r9_cached_spans_hold_no_more_memory_than_they_count() {
    let data = sample(200_003);
    let blob = gzip(&tar_of(&data), 6);
    let cache = Arc::new(Counting(std::sync::Mutex::default()));
    let context = Arc::new(Context::new(Arc::<Counting>::clone(&cache), None, 0));
    let tuning = Tuning {
        span: 33_000,
        ..SMALL
    };
    let file = ForeignFile::open(Fickle::new(&blob), spec_of(&blob), context, tuning).unwrap();
    let known = file.stream().known().unwrap();
    file.finish().unwrap();
    for span in &known.frontier.spans().spans {
        // All but a few of the span's bytes cut off, as the end of a file would.
        let number = known.frontier.locate(span.out, u64::MAX).unwrap().0 as u32;
        let unit = Unit {
            number,
            start: span.out,
            end: span.out + 100,
        };
        let before = file.stream().blob.context.limiter.taken();
        let bytes = file.stream().decode(&known, unit).unwrap();
        assert_eq!(bytes.len(), 100);
        let counted = file.stream().blob.context.limiter.taken() - before;
        assert!(counted as usize <= 100 + SLOP_ALLOWED, "{counted}");
    }
    assert!(file.read_at(0, usize::MAX).unwrap() == data);
    for (length, held) in cache.0.lock().unwrap().iter() {
        assert!(
            *held <= length + length / 8 + SLOP_ALLOWED,
            "{length}: {held}"
        );
    }
}

const SLOP_ALLOWED: usize = 1024;

/// The match that crosses the end of the last but one span may reach the end of the file.
#[test]
fn a_match_that_leaves_a_span_may_end_the_file() {
    const LEN: usize = 40_250 - 512; // behind the tar header: 250 bytes beyond the first span
    for random in (0..258).step_by(7) {
        let mut data = noise(1, random);
        data.resize(LEN, b'a');
        let blob = gzip(&tar_of(&data), 6);
        assert_reads(&open_small(&blob), &data, &format!("{random} random bytes"));
    }
}
