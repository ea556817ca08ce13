//! Invariant: opening and reading any blob under a right digest never panics; what is read in pieces
//! is what is read at once, and what verifies can be read.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use modeloci::memory::cache::LruChunkCache;
use modeloci::entry_path::EntryPath;
use modeloci::layer::{Context, LayerSpec, Opened, open};
use modeloci::oci::Descriptor;
use modeloci::source::memory::MemoryBlob;

fuzz_target!(|data: &[u8]| {
    let spec = LayerSpec {
        descriptor: Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", data),
        path: EntryPath::new("model.bin").expect("a path"),
        table: None,
    };
    let context = Context::new(Arc::new(LruChunkCache::new(1 << 20)), None, 0);
    let blob = Arc::new(MemoryBlob(Bytes::copy_from_slice(data)));
    let Ok(Opened::File(file, attr)) = open(blob, spec, Arc::new(context)) else {
        return;
    };
    assert_eq!(attr.size, file.size());
    let verified = file.verify().is_ok();
    let Ok(all) = file.read_at(0, 64 << 20) else {
        assert!(!verified);
        return;
    };
    assert!(verified);
    for start in (0..all.len()).step_by(all.len() / 5 + 1) {
        let piece = file.read_at(start as u64, 1000).expect("was read before");
        assert_eq!(piece, all[start..all.len().min(start + 1000)]);
    }
});
