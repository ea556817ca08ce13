//! Layers that are damaged, that lie, or that change: never a wrong byte, always the right error.

use modeloci_test_support::random::Random;

use super::*;

/// The error of a layer, whether opening or reading it meets it.
fn error_of(blob: &[u8]) -> Error {
    match open_spec(blob, spec_of(blob), SMALL) {
        Err(error) => error,
        Ok(file) => {
            // What comes before the damage may be served, all of it may not.
            let error = file.read_at(0, usize::MAX).unwrap_err();
            assert_eq!(
                file.read_at(0, usize::MAX).unwrap_err().to_string(),
                error.to_string()
            );
            assert_eq!(file.verify(&[]).unwrap_err().kind(), error.kind());
            error
        }
    }
}

fn assert_bad(blob: &[u8], kind: ErrorKind, words: &str) {
    let error = error_of(blob);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(
        error.to_string().contains("dir/model.bin (sha256:"),
        "{error}"
    );
}

/// Changes a header's bytes and makes its checksum right again.
fn forge(tar: &mut [u8], at: usize, text: &[u8]) {
    tar[at..at + text.len()].copy_from_slice(text);
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|&b| u32::from(b)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn l1_truncated_streams() {
    let tar = tar_of(&sample(100_000));
    for (blob, words) in [
        (gzip(&tar, 6), "truncated"),
        (zstd(&tar, 3), "truncated"),
        (tar.clone(), ""),
    ] {
        for cut in [1, 8, 9, blob.len() / 2, blob.len() - 5_000] {
            let cut = &blob[..blob.len() - cut];
            let error = error_of(cut);
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed),
                "{error}"
            );
            assert!(error.to_string().contains(words), "{error}");
            if blob[0] != 0x1f && cut.len() + 1_100 > blob.len() {
                break; // a tar cut inside its end
            }
        }
    }
}

#[test]
fn l1_damaged_streams_with_a_digest_that_matches_them() {
    let tar = tar_of(&sample(100_000));
    for blob in [gzip(&tar, 6), zstd(&tar, 3)] {
        for at in [blob.len() / 3, blob.len() / 2, blob.len() - 3] {
            let mut bad = blob.clone();
            bad[at] ^= 0x10;
            assert_bad(&bad, ErrorKind::Corrupt, "not a valid");
        }
    }
}

#[test]
fn l1_zstd_window_over_the_limit() {
    // Magic, a frame header with a window of 2^31 (no single segment), one raw block.
    let blob = [&b"\x28\xb5\x2f\xfd\0"[..], &[21 << 3], &[1, 8, 0, 7]].concat();
    let mut spec = spec_of(&blob);
    let error = open_spec(&blob, spec.clone(), SMALL).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    spec.reading = Reading::File;
    assert!(
        open_spec(&blob, spec, SMALL).is_ok(),
        "any bytes are a raw file"
    );
}

#[test]
fn l2_trailing_bytes() {
    let tar = tar_of(&sample(100_000));
    for blob in [gzip(&tar, 6), zstd(&tar, 3)] {
        assert_bad(&[&blob[..], b"\0"].concat(), ErrorKind::Corrupt, "");
        assert_bad(&[&blob[..], b"trailing"].concat(), ErrorKind::Corrupt, "");
        // One more stream is a part of the content, which has ended.
        let more = [&blob[..], &gzip(b"x", 6)].concat();
        error_of(&more);
    }
    assert_bad(&[&tar[..], &[1; 512]].concat(), ErrorKind::Malformed, "");
}

#[test]
fn l3_a_bomb_is_stopped_by_what_the_header_declares() {
    // 64 MB of zeros behind the end of the archive of a 4-byte file.
    let mut tar = tar_of(b"data");
    tar.resize(64 << 20, 0);
    for blob in [gzip(&tar, 6), zstd(&tar, 3)] {
        assert_bad(&blob, ErrorKind::Malformed, "follow the end");
    }
}

#[test]
fn l3_a_header_that_declares_more_than_deflate_can_hold() {
    let mut tar = file_header(NAME, 1 << 40, 0o644, 0);
    tar.resize(4096, 0);
    assert_bad(&gzip(&tar, 6), ErrorKind::Corrupt, "more than a layer");
    assert_bad(&tar, ErrorKind::Corrupt, "more than a layer");
}

#[test]
fn l4_no_file() {
    let mut dir = file_header("dir/", 0, 0o755, 0);
    forge(&mut dir, 156, b"5");
    let mut fifo = file_header(NAME, 0, 0o755, 0);
    forge(&mut fifo, 156, b"6");
    let end = END_OF_ARCHIVE.to_vec();
    let dirs = [dir, end.clone()].concat();
    for pack in [
        |t: &[u8]| t.to_vec(),
        |t: &[u8]| gzip(t, 6),
        |t: &[u8]| zstd(t, 3),
    ] {
        assert_bad(&pack(&dirs), ErrorKind::Malformed, "holds no file");
    }
    assert_bad(
        &gzip(&[fifo, end.clone()].concat(), 6),
        ErrorKind::Malformed,
        "neither a file",
    );
    assert_bad(
        &gzip(&end, 6),
        ErrorKind::Malformed,
        "what it holds is none",
    );
}

#[test]
fn l5_another_name_or_several_files() {
    let other = tar_as("other.bin", b"data");
    assert_bad(
        &gzip(&other, 6),
        ErrorKind::Malformed,
        "is not the manifest's \"model.bin\"",
    );
    let first = tar_of(b"data");
    let first = &first[..first.len() - 1024];
    let twice = [first, &tar_of(b"more")].concat();
    assert_bad(&gzip(&twice, 6), ErrorKind::Malformed, "several files");
    assert_bad(
        &gzip(&[first, &other].concat(), 6),
        ErrorKind::Malformed,
        "\"other.bin\"",
    );
}

#[test]
fn l5_size_and_digest_of_the_manifest() {
    let data = sample(5_000);
    let blob = gzip(&tar_of(&data), 6);
    let of_size = |size| {
        let mut spec = spec_of(&blob);
        stated(&mut spec).file_size = Some(size);
        open_spec(&blob, spec, SMALL)
    };
    assert!(of_size(5000).is_ok());
    let error = of_size(4999).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let mut spec = spec_of(&blob);
    stated(&mut spec).size += 1;
    assert_eq!(
        open_spec(&blob, spec, SMALL).err().unwrap().kind(),
        ErrorKind::Malformed
    );
}

#[test]
fn l7_links() {
    for (kind, symbolic) in [(b"1", false), (b"2", true)] {
        let mut tar = file_header(NAME, 0, 0o644, 0);
        forge(&mut tar, 157, b"../../etc/passwd");
        forge(&mut tar, 156, kind);
        tar.extend_from_slice(&END_OF_ARCHIVE);
        let blob = gzip(&tar, 6);
        let look = |blob: &[u8], spec| {
            let looked = ForeignFile::look(Fickle::new(blob), spec, context(0, None), SMALL);
            looked.map(|looked| match looked {
                Looked::Link(target) => Some(target),
                Looked::File(_) | Looked::Directory | Looked::Members => None,
            })
        };
        // Where it may lead is the model's business; that it is verified before is this layer's.
        let path = "../../etc/passwd".into();
        let target = LinkTarget { path, symbolic };
        assert_eq!(look(&blob, spec_of(&blob)).unwrap(), Some(target));
        let mut bad = blob.clone();
        bad[4] ^= 1; // the time in the gzip header, which nothing else checks
        let error = look(&bad, spec_of(&blob)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);

        let end = tar.len() - 1024;
        let twice = [&tar[..end], &tar].concat();
        assert_bad(&gzip(&twice, 6), ErrorKind::Malformed, "several");
        let file = tar_of(b"data");
        let before = [&tar[..end], &file].concat();
        assert_bad(&gzip(&before, 6), ErrorKind::Malformed, "several");
        let behind = [&file[..file.len() - 1024], &tar].concat();
        assert_bad(&gzip(&behind, 6), ErrorKind::Malformed, "is a link");
    }
}

#[test]
fn d3_one_flipped_bit_before_the_first_read() {
    let data = sample(60_000);
    let tar = tar_of(&data);
    for blob in [tar.clone(), gzip(&tar, 6), zstd(&tar, 3)] {
        for at in [5_000, blob.len() / 2, blob.len() - 1] {
            let source = Fickle::new(&blob);
            let reader: Arc<dyn ReadAt> = Arc::<Fickle>::clone(&source);
            let file = ForeignFile::open(reader, spec_of(&blob), context(1 << 20, None), SMALL);
            let file = file.unwrap();
            source.data.write().unwrap()[at] ^= 1;
            let error = file.read_at(0, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(
                error.to_string().contains("the layer is sha256:"),
                "{error}"
            );
        }
    }
}

#[test]
fn d3_one_flipped_bit_after_the_first_read() {
    let data = sample(300_000);
    let tar = tar_of(&data);
    let frames = tar.chunks(20_000).flat_map(|c| zstd(c, 3)).collect();
    for blob in [tar.clone(), gzip(&tar, 6), frames] {
        let (source, file) = open_fickle(&blob, 0, None);
        assert!(file.read_at(0, 300_000).unwrap() == data);
        let at = blob.len() / 2;
        source.data.write().unwrap()[at] ^= 1;
        let mut failed = 0;
        for offset in (0..300_000).step_by(10_000) {
            match file.read_at(offset, 10_000) {
                Ok(bytes) => assert!(bytes == data[offset as usize..offset as usize + 10_000]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    assert!(error.to_string().contains("changed since"), "{error}");
                    failed += 1;
                }
            }
        }
        assert!((1..15).contains(&failed), "{failed} reads failed");
        assert_eq!(file.verify(&[]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn r1_a_truncated_archive_is_an_error_and_r3_a_storage_that_recovers_is_none() {
    let data = sample(100_000);
    let blob = gzip(&tar_of(&data), 6);
    let (source, file) = open_fickle(&blob, 0, None);
    source.failing.store(true, Ordering::SeqCst);
    assert_eq!(
        file.read_at(0, 1).unwrap_err().kind(),
        ErrorKind::Environment
    );
    source.failing.store(false, Ordering::SeqCst);
    assert!(file.read_at(0, 100_000).unwrap() == data);
    source.failing.store(true, Ordering::SeqCst);
    assert_eq!(
        file.read_at(0, 1).unwrap_err().kind(),
        ErrorKind::Environment
    );
    source.failing.store(false, Ordering::SeqCst);
    assert!(file.read_at(0, 100_000).unwrap() == data);
    // The decoder, once it has ended, keeps nothing.
    while file.stream().known().unwrap().frontier.has_decoder() {
        std::thread::yield_now();
    }
    source.data.write().unwrap().truncate(2_000);
    assert_eq!(
        file.read_at(90_000, 1).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

/// The in-tree twin of the fuzz target `foreign_layer`: streams changed at random, under a digest that
/// is right. Whatever is served, zlib or libzstd decodes to the same.
#[test]
fn l1_what_is_served_of_a_forged_stream_is_what_others_decode() {
    let data = sample(60_000);
    let tar = tar_of(&data);
    let parts = |pack: fn(&[u8]) -> Vec<u8>| tar.chunks(9_000).flat_map(pack).collect::<Vec<u8>>();
    let seeds = [
        tar.clone(),
        gzip(&tar, 6),
        gzip(&tar, 0),
        parts(|part| gzip(part, 1)),
        parts(|part| zstd(part, 3)),
        zstd_plain(&tar),
    ];
    let mut random = Random(7);
    let mut random = |n| random.below(n);
    let mut served = 0;
    for round in 0..3_000 {
        let mut blob = seeds[round % seeds.len()].clone();
        for _ in 0..=random(3) {
            let at = match random(3) {
                0 => random(blob.len().min(600)),
                1 => blob.len() - 1 - random(blob.len().min(60)),
                _ => random(blob.len()),
            };
            match random(5) {
                0 => blob[at] = random(256) as u8,
                1 => blob.truncate(at.max(600)),
                2 => blob.splice(at..at, [0; 3]).for_each(drop),
                3 => drop(blob.drain(at..blob.len().min(at + random(5)))),
                _ => blob[at] ^= 1 << random(8),
            }
        }
        let Ok(file) = open_spec(&blob, spec_of(&blob), SMALL) else {
            continue;
        };
        let Ok(found) = file.read_at(0, usize::MAX) else {
            continue;
        };
        let mut expected = Vec::new();
        match file.content().packaging {
            Packaging::Gzip => drop(
                flate2::read::MultiGzDecoder::new(&blob[..])
                    .read_to_end(&mut expected)
                    .unwrap(),
            ),
            Packaging::Zstd => expected = ::zstd::decode_all(&blob[..]).unwrap(),
            Packaging::Tar | Packaging::Raw => expected = blob.clone(),
        }
        let from = file.content().member.start as usize;
        assert!(found == expected[from..from + found.len()], "round {round}");
        assert_eq!(found.len() as u64, file.shown_size());
        for at in (0..found.len()).rev().step_by(7_001) {
            let end = found.len().min(at + 100);
            assert!(file.read_at(at as u64, 100).unwrap() == found[at..end]);
        }
        served += 1;
    }
    assert!(served > 50, "{served}");
}

/// Without the checksum that finds most damage.
fn zstd_plain(data: &[u8]) -> Vec<u8> {
    ::zstd::bulk::compress(data, 3).unwrap()
}
