//! The same tree and options give the same bytes.

use std::ffi::OsStr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn jobs_places_and_times_change_nothing() {
    let c = limits::MIN_CHUNK_BYTES as usize;
    let noise = noise(9, 20 * c + 3);
    let text = b"some text, again and again; ".repeat(30_000);
    let files: [(&str, &[u8]); 5] = [
        ("weights/a.bin", &noise),
        ("weights/b.bin", &text),
        ("z", b""),
        ("config.json", b"{}"),
        ("tokenizer.json", &text[..c]),
    ];
    for compression in [
        Compression::Auto,
        Compression::Gzip(6),
        Compression::Zstd(3),
        Compression::None,
    ] {
        let mut first: Option<Vec<u8>> = None;
        for (run, jobs) in [1, 2, 3, 8, 0].into_iter().enumerate() {
            let dir = scratch(&files);
            for (path, _) in files {
                let file = fs::File::options()
                    .write(true)
                    .open(model_of(&dir).join(path))
                    .unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * run as u64);
                file.set_modified(time).unwrap();
            }
            let options = PackOptions {
                compression,
                jobs,
                ..options()
            };
            pack_in(dir.path(), &options).unwrap();
            let bytes = fs::read(dir.path().join("out.tar")).unwrap();
            let first = first.get_or_insert_with(|| bytes.clone());
            assert!(*first == bytes, "{compression:?} with {jobs} jobs");
        }
    }
}

#[test]
fn many_small_files() {
    let dir = scratch(&[]);
    for n in 0..2_000 {
        fs::write(model_of(&dir).join(format!("{n:04}")), n.to_string()).unwrap();
    }
    pack_in(dir.path(), &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    let titles: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
    assert_eq!(written.titles(), titles);
}

#[test]
fn progress_counts_every_byte_once() {
    let c = limits::MIN_CHUNK_BYTES as usize;
    let dir = scratch(&[("a", &vec![1; 3 * c + 1]), ("b", b"12")]);
    let seen = Mutex::new(Vec::new());
    let output = Output::File(dir.path().join("out.tar"));
    pack(
        &model_of(&dir),
        &config(),
        &output,
        &options(),
        &|done, total| {
            seen.lock().unwrap().push((done, total));
        },
    )
    .unwrap();
    let (c, total) = (c as u64, 3 * c as u64 + 3);
    let done = [0, c, 2 * c, 3 * c, 3 * c + 1, 3 * c + 3];
    assert_eq!(*seen.lock().unwrap(), done.map(|done| (done, total)));
}

#[test]
fn source_date_epoch_is_a_number_of_seconds() {
    let epoch = |text: &str| plan::epoch(Some(OsStr::new(text)));
    assert_eq!(plan::epoch(None).unwrap(), 0);
    assert_eq!(epoch("").unwrap(), 0);
    assert_eq!(epoch("1700000000").unwrap(), 1_700_000_000);
    for bad in [
        "-1",
        "+1",
        "1.5",
        "now",
        " 1",
        "0x10",
        "99999999999",
        "18446744073709551616",
    ] {
        let error = epoch(bad).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage, "{bad}");
    }
}

#[test]
fn options_that_no_reader_accepts() {
    let bad = [
        PackOptions {
            chunk_size: 0,
            ..options()
        },
        PackOptions {
            chunk_size: 100_000,
            ..options()
        },
        PackOptions {
            chunk_size: 32 << 20,
            ..options()
        },
        PackOptions {
            chunk_digest: Algorithm::Sha512,
            ..options()
        },
    ];
    for options in bad {
        let dir = scratch(&[]);
        let error = pack_in(dir.path(), &options).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
    }
}
