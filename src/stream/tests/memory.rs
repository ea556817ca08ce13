//! r16: where there is no disk to put things on, and where little memory is left.

use super::*;
use crate::memory::limiter::Limiter;
use crate::memory::promise::{self, Promise};
use crate::stream::spans::Entry;

/// As [`SMALL`], on a machine without a disk.
const NO_DISK: Tuning = Tuning {
    disk: false,
    ..SMALL
};

fn open_without_disk(blob: &[u8]) -> ForeignFile {
    let context = context(300_000, None);
    ForeignFile::open(Fickle::new(blob), spec_of(blob), context, NO_DISK).unwrap()
}

/// What an attacker wants is a stream that expands, of one frame or of few seek points.
#[test]
fn r16_what_cannot_be_put_on_disk_is_decoded_again() {
    let data = sample(700_000);
    let tar = tar_of(&data);
    for (name, blob) in [
        ("zstd", zstd(&tar, 3)),
        (
            "zstd frames",
            tar.chunks(200_000).flat_map(|c| zstd(c, 3)).collect(),
        ),
        ("gzip", gzip(&tar, 6)),
        (
            "gzip members",
            tar.chunks(90_000).flat_map(|c| gzip(c, 1)).collect(),
        ),
    ] {
        for full in [false, true] {
            let file = open_without_disk(&blob);
            let limiter = &file.stream().blob.context.limiter;
            let _rest = full.then(|| limiter.spool(promise::SPOOL).unwrap());
            let name = format!("{name}, full: {full}");
            assert_reads(&file, &data, &name);
            // Backwards, so that nothing is read in order.
            for at in (0..data.len() - 1000).rev().step_by(33_333) {
                let read = file.read_at(at as u64, 1000).unwrap();
                assert!(read == data[at..at + 1000], "{name} at {at}");
            }
            let places = file.stream().known().unwrap().frontier.spans().spans;
            let later = places
                .iter()
                .filter(|s| matches!(s.entry, Entry::After { .. }));
            match full || name.starts_with("zstd,") {
                true => assert!(later.count() > 5, "{name}"),
                false => assert!(name.starts_with("zstd") || later.count() == 0, "{name}"),
            }
            assert!(places.len() > 8, "{name}: {} spans", places.len());
        }
    }
}

#[test]
fn r16_a_frontier_that_was_sent_home_goes_on_without_a_stored_seek_point() {
    let data = sample(900_000);
    let blob = gzip(&tar_of(&data), 6);
    let file = open_without_disk(&blob);
    let _rest = file
        .stream()
        .blob
        .context
        .limiter
        .spool(promise::SPOOL)
        .unwrap();
    let known = file.stream().known().unwrap();
    for at in [0, 200_000, 400_000, 899_000] {
        assert!(file.read_at(at, 1000).unwrap() == data[at as usize..][..1000]);
        while known.frontier.has_decoder() && !known.frontier.is_complete() {
            known.frontier.send_home();
            std::thread::yield_now();
        }
    }
}

/// The largest window there is, in a mount that has no room for it, and in one that has.
#[test]
fn r16_a_window_that_cannot_fit_is_refused_when_the_layer_is_opened() {
    let data = sample(100_000);
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&tar_of(&data)).unwrap();
    let blob = encoder.finish().unwrap();
    let open = |cache: u64| {
        let limiter = Limiter::new(Promise::new(cache, 8, 0), Duration::ZERO);
        let cache = Arc::new(LruChunkCache::new(cache));
        let context = Arc::new(Context::within(limiter, cache, None, 0));
        ForeignFile::open(Fickle::new(&blob), spec_of(&blob), context, SMALL)
    };
    let error = open(16 << 20).err().unwrap().to_string();
    let (_, size) = error.split_once("--cache-size ").expect(&error);
    let size: u64 = size.split_once("MiB").unwrap().0.parse().unwrap();
    assert!((64..128).contains(&size), "{error}");
    assert!(open((size - 1) << 20).is_err());
    assert_reads(&open(size << 20).unwrap(), &data, "with what was asked for");
}

/// Later frames may have larger windows than the first: a pass begins anew when it must.
#[test]
fn r16_windows_that_grow_are_waited_for_with_empty_hands() {
    let data = sample(400_000);
    let tar = tar_of(&data);
    let blob: Vec<u8> = tar
        .chunks(50_000)
        .enumerate()
        .flat_map(|(n, piece)| {
            let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(17 + n as u32).unwrap();
            encoder.write_all(piece).unwrap();
            encoder.finish().unwrap()
        })
        .collect();
    let cache = Arc::new(LruChunkCache::new(16 << 20));
    let limiter = Limiter::new(Promise::new(16 << 20, 8, 0), Duration::ZERO);
    let context = Arc::new(Context::within(Arc::clone(&limiter), cache, None, 0));
    let files: Vec<_> = (0..6)
        .map(|_| {
            let context = Arc::clone(&context);
            ForeignFile::open(Fickle::new(&blob), spec_of(&blob), context, SMALL).unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| assert_reads(file, &data, "several at once"));
        }
        assert!(limiter.taken() <= limiter.limit());
    });
    drop((files, context));
    assert_eq!(limiter.taken(), 0);
}
