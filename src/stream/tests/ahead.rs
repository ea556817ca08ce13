//! The frontier: what is served before all of a gzip stream was decoded, and what is not.

use std::sync::Weak;
use std::thread;

use super::*;

/// A blob that is handed out only as far as a test allows.
struct Gated {
    data: Vec<u8>,
    allowed: Mutex<u64>,
    opened: std::sync::Condvar,
}

impl Gated {
    fn new(data: &[u8], allowed: u64) -> Arc<Gated> {
        Arc::new(Gated {
            data: data.to_vec(),
            allowed: Mutex::new(allowed),
            opened: std::sync::Condvar::new(),
        })
    }

    fn open(&self) {
        *self.allowed.lock().unwrap() = u64::MAX;
        self.opened.notify_all();
    }
}

impl ReadAt for Gated {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let allowed = self.allowed.lock().unwrap();
        let _allowed = self.opened.wait_while(allowed, |allowed| *allowed < end);
        buf.copy_from_slice(&self.data[offset as usize..end as usize]);
        Ok(())
    }
}

fn open_on(blob: Arc<dyn ReadAt>, spec: LayerSpec, context: &Arc<Context>) -> ForeignFile {
    ForeignFile::open(blob, spec, Arc::clone(context), SMALL).unwrap()
}

fn covered(file: &ForeignFile) -> u64 {
    file.stream().known().unwrap().frontier.covered()
}

fn decoded(context: &Context) -> u64 {
    context.stats.chunks_decoded.load(Ordering::SeqCst)
}

/// Waits for something that another thread does soon.
fn await_that(what: impl Fn() -> bool) {
    while !what() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn d3_nothing_is_served_before_the_last_byte_was_hashed() {
    let data = sample(3_000_000);
    let blob = gzip(&tar_of(&data), 6);
    assert!(blob.len() > 1 << 20, "the hash reads a megabyte at a time");
    let mut bad = blob.clone();
    *bad.last_mut().unwrap() ^= 1;
    for (content, right) in [(&blob, true), (&bad, false)] {
        let context = context(8 << 20, None);
        let source = Gated::new(content, 1 << 20);
        let reader: Arc<dyn ReadAt> = Arc::<Gated>::clone(&source);
        let file = open_on(reader, spec_of(&blob), &context);
        thread::scope(|scope| {
            let reading = scope.spawn(|| file.read_at(0, 1));
            // The decoder is far beyond what is asked for.
            await_that(|| decoded(&context) > 3);
            assert!(!reading.is_finished());
            source.open();
            match reading.join().unwrap() {
                Ok(bytes) => assert!(right && bytes == data[..1]),
                Err(error) => {
                    assert!(!right && error.kind() == ErrorKind::Corrupt);
                    assert!(
                        error.to_string().contains("the layer is sha256:"),
                        "{error}"
                    );
                }
            }
        });
        let again = file.read_at(2_000_000, 10);
        assert_eq!(again.is_ok(), right);
        if !right {
            await_that(|| Arc::strong_count(&file.stream().blob) == 1);
        }
    }
}

#[test]
fn one_decode_is_enough_for_a_sequential_reader() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    // Also a cache that holds no span.
    for cache in [1 << 20, 100_000, 10_000, 0] {
        let context = context(cache, None);
        let source = Fickle::new(&blob);
        let file = open_on(source, spec_of(&blob), &context);
        let mut read = Vec::new();
        while read.len() < data.len() {
            read.extend_from_slice(&file.read_at(read.len() as u64, 7_001).unwrap());
        }
        assert!(read == data);
        file.finish().unwrap();
        let spans = file.stream().known().unwrap().frontier.span_count() as u64;
        let decoded = decoded(&context);
        // A small cache does not hold what is decoded beside the hash, and a cache of less than a
        // span not even the last one, which is then decoded for each of six reads.
        let allowed = if cache < 200_000 { spans + 10 } else { spans };
        assert!(decoded <= allowed, "cache {cache}: {decoded} of {spans}");
    }
}

#[test]
fn one_that_jumps_ahead_and_back_is_served_from_both_sides_of_the_frontier() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    for cache in [160_000, 0] {
        let context = context(cache, None);
        let file = open_on(Fickle::new(&blob), spec_of(&blob), &context);
        assert!(file.read_at(0, 100).unwrap() == data[..100]);
        assert!(covered(&file) < 300_000, "it runs only a little ahead");
        assert!(file.read_at(450_000, 100).unwrap() == data[450_000..450_100]);
        let there = covered(&file);
        assert!((450_000..500_000).contains(&there), "{there}");
        for at in [250_000, 100_000, 440_000, 0, 599_000, 300_000] {
            let end = 600_000.min(at + 3_000);
            assert!(
                file.read_at(at as u64, 3_000).unwrap() == data[at..end],
                "{at}"
            );
        }
        assert_eq!(covered(&file), u64::MAX);
        assert!(context.cache.used() <= cache);
    }
}

#[test]
fn r10_two_readers_apart_and_many_together() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    let context = context(200_000, None);
    let file = open_on(Fickle::new(&blob), spec_of(&blob), &context);
    let start = Barrier::new(12);
    thread::scope(|scope| {
        for n in 0..12 {
            let (file, start, data) = (&file, &start, &data);
            scope.spawn(move || {
                start.wait();
                let mut at = [0, 300_000, 520_000][n % 3];
                while at < data.len() {
                    let bytes = file.read_at(at as u64, 9_973).unwrap();
                    assert!(bytes == data[at..at + bytes.len()], "{at}");
                    at += bytes.len();
                }
            });
        }
    });
    assert_eq!(covered(&file), u64::MAX);
}

#[test]
fn l1_what_comes_before_an_error_at_the_frontier_is_served_and_the_rest_is_not() {
    let data = sample(300_000);
    let tar = tar_of(&data);
    let good = gzip(&tar, 6);
    let mut crc = good.clone();
    let at = crc.len() - 6;
    crc[at] ^= 1;
    let cut = good[..good.len() / 2].to_vec();
    let mut second = tar[..tar.len() - 1024].to_vec();
    second.extend_from_slice(&tar_as(NAME, b"more"));
    let behind = [&good[..], b"trailing"].concat();
    for (blob, words, served) in [
        (crc, "not a valid gzip", 260_000),
        (cut, "truncated", 80_000),
        (gzip(&second, 6), "several files", 260_000),
        (behind, "not a valid gzip", 260_000),
        (gzip(&tar[..200_000], 6), "ends inside", 150_000),
    ] {
        let context = context(1 << 20, None);
        let file = open_on(Fickle::new(&blob), spec_of(&blob), &context);
        for _ in 0..2 {
            assert!(
                file.read_at(0, served).unwrap() == data[..served],
                "{words}"
            );
            let error = file.read_at(299_000, 1_000).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_ne!(error.kind(), ErrorKind::Environment);
            assert!(file.read_at(0, usize::MAX).is_err());
        }
        await_that(|| !file.stream().known().unwrap().frontier.has_decoder());
        assert!(file.verify(&[]).is_err());
        assert!(file.read_at(0, 1).is_err(), "found bad as a whole");
    }
}

#[test]
fn r3_a_decoder_that_storage_failed_goes_on_when_it_recovers() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    let (source, file) = open_fickle(&blob, 160_000, None);
    assert!(file.read_at(0, 10).unwrap() == data[..10]);
    for at in [300_000, 500_000] {
        source.failing.store(true, Ordering::SeqCst);
        let error = file.read_at(at as u64, 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment);
        source.failing.store(false, Ordering::SeqCst);
        assert!(file.read_at(at as u64, 10).unwrap() == data[at..at + 10]);
    }
    // The trailer is still checked against all of the member.
    assert!(file.read_at(0, usize::MAX).unwrap() == data);
}

#[test]
fn r1_a_blob_that_changes_behind_the_hash_is_noticed_at_the_frontier() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    let (source, file) = open_fickle(&blob, 160_000, None);
    assert!(file.read_at(0, 10).unwrap() == data[..10]);
    let at = blob.len() - 2_000;
    source.data.write().unwrap()[at] ^= 1;
    let error = file.read_at(599_000, 10).unwrap_err();
    assert!(error.to_string().contains("changed since"), "{error}");
    assert!(file.read_at(300_000, 10).unwrap() == data[300_000..300_010]);
}

#[test]
fn r9_many_layers_keep_few_decoders_and_go_on_where_they_were() {
    let context = context(400_000, None);
    let layers: Vec<_> = (0..9)
        .map(|n| {
            let data = sample(400_000 + n * 1_001);
            let tar = tar_of(&data);
            // One member, and many: each has its checksum.
            let blob = match n % 2 {
                0 => gzip(&tar, 6),
                _ => tar.chunks(70_001).flat_map(|c| gzip(c, 6)).collect(),
            };
            let file = open_on(Fickle::new(&blob), spec_of(&blob), &context);
            (file, data)
        })
        .collect();
    for at in (0..400_000).step_by(25_000) {
        for (file, data) in &layers {
            let end = data.len().min(at + 25_000);
            assert!(file.read_at(at as u64, 25_000).unwrap() == data[at..end]);
            assert!(context.frontiers.count() <= 3);
        }
    }
    for (file, data) in &layers {
        assert!(file.read_at(0, usize::MAX).unwrap() == *data);
        assert!(file.stream().known().unwrap().frontier.is_complete());
    }
    // All of them at once, each from its own end.
    thread::scope(|scope| {
        for (file, data) in &layers {
            let blob = gzip(&tar_of(data), 1);
            let again = open_on(Fickle::new(&blob), spec_of(&blob), &context);
            scope.spawn(move || {
                for at in [0, 390_000, 100_000] {
                    assert!(again.read_at(at as u64, 999).unwrap() == data[at..at + 999]);
                }
            });
            drop(file.read_at(0, 1));
        }
    });
    assert!(context.frontiers.count() <= 3);
}

/// Each layer that waits to be let in had a thread, however many layers there are.
#[test]
fn r16_layers_beyond_the_threads_for_them_are_decoded_by_their_readers() {
    let context = context(400_000, None);
    let taken: Vec<_> = std::iter::from_fn(|| context.frontier_threads.take()).collect();
    assert_eq!(taken.len(), crate::memory::threads::FRONTIERS);
    let data = sample(400_000);
    let blobs: Vec<_> = (0..6).map(|n| gzip(&tar_of(&data[n..]), 6)).collect();
    thread::scope(|scope| {
        for (n, blob) in blobs.iter().enumerate() {
            let (data, file) = (
                &data[n..],
                open_on(Fickle::new(blob), spec_of(blob), &context),
            );
            scope.spawn(move || {
                for at in [0, 300_000, 100_000] {
                    assert!(file.read_at(at as u64, 999).unwrap() == data[at..at + 999]);
                }
                assert!(file.read_at(0, usize::MAX).unwrap() == data);
            });
        }
    });
    assert_eq!(context.frontiers.count(), 0, "who reads does not stay");
}

#[test]
fn a_file_that_is_dropped_ends_its_thread() {
    let blob = gzip(&tar_of(&sample(600_000)), 6);
    let context = context(160_000, None);
    let weak: Vec<Weak<Blob>> = (0..6)
        .map(|_| {
            let file = open_on(Fickle::new(&blob), spec_of(&blob), &context);
            file.read_at(0, 10).unwrap();
            Arc::downgrade(&file.stream().blob)
        })
        .collect();
    await_that(|| weak.iter().all(|layer| layer.strong_count() == 0));
    assert_eq!(context.frontiers.count(), 0);
}

#[test]
fn left_alone_it_goes_on_to_the_end_and_keeps_the_index() {
    let data = sample(600_000);
    let blob = gzip(&tar_of(&data), 6);
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let context = context(160_000, Some(dir.path().to_path_buf()));
    let tuning = Tuning {
        idle: Duration::from_millis(1),
        ..SMALL
    };
    let file = ForeignFile::open(
        Fickle::new(&blob),
        spec_of(&blob),
        Arc::clone(&context),
        tuning,
    )
    .unwrap();
    assert!(file.read_at(0, 10).unwrap() == data[..10]);
    await_that(|| file.stream().known().unwrap().frontier.is_complete());
    let hex = Digest::sha256(&blob).hex();
    assert!(
        dir.path()
            .join(format!("seek-tables/sha256-{hex}.idx"))
            .exists()
    );
    assert!(context.cache.used() <= 160_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_reads_at_any_frontier(
        size in 2_000usize..300_000, kind in 0usize..3, span in 300u64..50_000,
        cache in prop::sample::select(vec![0u64, 5_000, 60_000, 1 << 20]),
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40_000), 1..30),
    ) {
        let data = sample(size);
        let tar = tar_of(&data);
        let blob = match kind {
            0 => gzip(&tar, 6),
            1 => gzip(&tar, 0),
            _ => tar.chunks(9_001).flat_map(|c| gzip(c, 1)).collect(),
        };
        let tuning = Tuning { span, packed_block: 512, ..SMALL };
        let context = context(cache, None);
        let file =
            ForeignFile::open(Fickle::new(&blob), spec_of(&blob), context, tuning).unwrap();
        for (at, len) in ranges {
            let at = at.index(size);
            let end = size.min(at + len);
            prop_assert!(file.read_at(at as u64, len).unwrap() == data[at..end], "{at}");
        }
        file.finish().unwrap();
        prop_assert!(file.read_at(0, usize::MAX).unwrap() == data);
    }
}

/// A blob that ends with many zeros.
struct Sparse {
    start: Vec<u8>,
    len: u64,
}

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.start.get(at..));
        let mut bytes = rest.unwrap_or_default().iter().copied();
        buf.fill_with(|| bytes.next().unwrap_or(0));
        Ok(())
    }
}

/// Its spans would be decoded whole while nobody knows yet whether the blob is the manifest's.
#[test]
fn r9_a_file_that_claims_terabytes_is_not_decoded_before_its_hash() {
    for (size, expected) in [
        (2 << 20, false), // decoded at once, whole
        (3 << 20, true),
        (4 << 40, true),
        (5 << 40, false),
        (60 << 40, false),
    ] {
        let head = file_header(NAME, size, 0o644, 0);
        let blob = Sparse {
            start: gzip(&[head, sample(100_000)].concat(), 6),
            len: 64 << 30, // what could hold as much
        };
        let mut spec = spec_of(&blob.start);
        stated(&mut spec).size = blob.len;
        let context = context(0, None);
        let file = ForeignFile::open(Arc::new(blob), spec, context, Tuning::DEFAULT).unwrap();
        assert_eq!(file.stream().blob.has_frontier(), expected, "{size}");
    }
}

#[test]
fn of_two_results_the_failure_stands_and_the_other_is_closed() {
    let data = sample(600_000);
    let file = open_small(&gzip(&tar_of(&data), 6));
    let known = |number| Arc::new(Known::growing(number, 4096));
    let (first, second, third) = (known(1), known(2), known(3));
    let stands = file.stream().remember(Ok(Arc::clone(&first))).unwrap();
    assert!(Arc::ptr_eq(&stands, &first));
    let stands = file.stream().remember(Ok(Arc::clone(&second))).unwrap();
    assert!(Arc::ptr_eq(&stands, &first));
    assert!(second.frontier.is_closed() && !first.frontier.is_closed());
    assert!(
        file.stream()
            .remember(Err(Error::corrupt("layer", "is bad")))
            .is_err()
    );
    assert!(first.frontier.is_closed());
    let error = file
        .stream()
        .remember(Ok(Arc::clone(&third)))
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "layer: is bad");
    assert!(third.frontier.is_closed());
    assert_eq!(file.read_at(0, 1).unwrap_err().to_string(), "layer: is bad");
}
