//! Invariant: parsing a chunk table never panics, and one that is accepted tiles its data and its tar.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use modeloci::layer::table::{ChunkTable, Framing, unwrap};

fuzz_target!(|data: &[u8]| {
    for framing in [Framing::Gzip, Framing::Zstd, Framing::Plain] {
        let _ = unwrap(framing, data);
    }
    let Ok(table) = ChunkTable::parse(Bytes::copy_from_slice(data), u64::MAX, "layer") else {
        return;
    };
    let header = table.header();
    let (mut at, mut decoded) = (header.framing.start(), 0);
    for segment in 0..table.segments() {
        let row = table.row(segment).expect("every segment has a row");
        assert_eq!(row.offset, at);
        at += u64::from(row.length);
        decoded += table.decoded_len(segment);
    }
    assert_eq!(at + header.framing.end(), header.data_size);
    assert_eq!(decoded, header.tar_size);
});
