//! Every bound on untrusted input, in one place.
//!
//! A limit refuses what no real model needs and what would cost memory or time out of proportion.

/// Longest path component, in bytes (`NAME_MAX` of Linux file systems).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest path, in bytes (`PATH_MAX` less the terminating zero).
pub const MAX_PATH_BYTES: usize = 4_095;
/// Deepest path, in components.
pub const MAX_PATH_DEPTH: usize = 64;

/// Largest manifest or index, in bytes. A layer takes some 650: this has room for 25,000 files.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// What every registry must accept, in bytes (distribution specification, "Pushing Manifests").
pub const REGISTRY_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest model config, in bytes: what registries accept of a manifest, and read as a whole.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Deepest nesting of a JSON document.
pub const MAX_JSON_DEPTH: usize = 128;
/// Most values of a JSON document, the layers of a manifest and the manifests of an index not
/// counted: a parsed value takes 32 bytes, a field of an object 130, its text as little as two.
pub const MAX_JSON_VALUES: usize = 1 << 17;
/// Most objects of a JSON document, counted alike: a parsed object takes some 600 bytes, its text as
/// little as seven.
pub const MAX_JSON_OBJECTS: usize = 1 << 14;
/// Most values of one layer of a manifest, or of one manifest of an index.
pub const MAX_JSON_ITEM_VALUES: usize = 1 << 12;
/// Most objects of one.
pub const MAX_JSON_ITEM_OBJECTS: usize = 1 << 6;
/// Most manifests of one index, and most documents read to find the model's.
pub const MAX_MANIFESTS: usize = 1_000;
/// Most bytes of manifests that are read to choose one of them.
pub const MAX_CANDIDATE_BYTES: u64 = 256 << 20;
/// Deepest nesting of indexes.
pub const MAX_INDEX_DEPTH: usize = 8;
/// Most layers of one manifest.
pub const MAX_LAYERS: usize = 100_000;
/// Most files and directories of one model.
pub const MAX_NODES: usize = 1_000_000;

/// Largest file of patterns that say what is not packed.
pub const MAX_IGNORE_FILE_BYTES: u64 = 64 << 10;
/// Largest index of shards that is read while packing; one of 100,000 tensors has about 9 MB.
pub const MAX_SHARD_INDEX_BYTES: u64 = 32 << 20;

/// How long adding a layer waits for others that change the archive.
pub const ADD_LAYER_WAIT: std::time::Duration = std::time::Duration::from_secs(600);

/// Most entries of an outer archive.
pub const MAX_ARCHIVE_ENTRIES: usize = 250_000;
/// Largest pax or GNU long-name extension of one entry, in bytes.
pub const MAX_TAR_EXTENSION_BYTES: u64 = 64 << 10;
/// Most bytes of padding and zero blocks accepted after the end of a tar (GNU tar's `-b` records).
pub const MAX_TAR_TAIL_BYTES: u64 = 16 << 20;

/// Most bytes of a layer's tar that belong to no file, such as directories and extension headers,
/// before a file and behind the last one. An image of one file has a directory for each component
/// of its path.
pub const MAX_TAR_OVERHEAD_BYTES: u64 = 1 << 20;
/// Most members of a gzip stream, or frames of a zstd stream, in a row that hold nothing. The largest
/// chunk table takes 34,000 of them.
pub const MAX_EMPTY_MEMBERS: u32 = 1 << 16;

/// Most bytes that the stream of a layer of any number of files has for each byte of the layer, beyond
/// [`ARCHIVE_ALLOWANCE`]. Such a layer is gone over before anything of the model is seen.
pub const MAX_ARCHIVE_RATIO: u64 = 64;
/// Bytes that any such layer may expand to.
pub const ARCHIVE_ALLOWANCE: u64 = 1 << 30;
/// Most bytes of the list of one layer's files.
pub const MAX_LISTING_BYTES: usize = 64 << 20;

/// Largest layer that holds a link, in bytes: it is read as a whole when the model is opened.
pub const MAX_LINK_LAYER_BYTES: u64 = 64 << 10;
/// Most remarks about an archive; the others are counted.
pub const MAX_NOTES: usize = 100;
/// Most bytes of them all.
pub const MAX_NOTE_BYTES: usize = 16 << 10;
/// Most links from one to the next until a file (what Linux follows).
pub const MAX_LINKS: usize = 40;

/// Largest blob or file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 50;

/// Smallest chunk, in bytes.
pub const MIN_CHUNK_BYTES: u32 = 64 << 10;
/// Largest chunk, in bytes.
pub const MAX_CHUNK_BYTES: u32 = 16 << 20;
/// Chunk size when none is asked for, in bytes.
pub const DEFAULT_CHUNK_BYTES: u32 = 512 << 10;
/// Bytes that the kernel reads ahead of a reader of a mount when nothing else is asked for: so many may be
/// under way at once, in requests of which any may be served first. A lone fault of a mapping reads as much
/// around itself; for streams more is decoded ahead below the mount.
pub const KERNEL_READAHEAD_BYTES: u32 = 1 << 20;
/// Largest chunk table, in bytes.
pub const MAX_CHUNK_TABLE_BYTES: u64 = 256 << 20;
/// Most data bytes of one chunk-table gzip member (some readers refuse a larger FEXTRA).
pub const CHUNK_TABLE_MEMBER_BYTES: usize = 7_900;

/// Decoded chunk cache when none is asked for, in bytes.
pub const DEFAULT_CACHE_BYTES: u64 = 256 << 20;

/// Largest zstd window, as a power of two: what the zstd tool itself accepts by default.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// Most seek points, block digests or spooled pieces of one layer that has no chunk table; beyond,
/// they lie further apart.
pub const MAX_FOREIGN_SPANS: u64 = 1 << 18;
/// Most decompressed bytes kept in a temporary file for one byte of a layer, beyond
/// [`SPOOL_ALLOWANCE`]: what deflate reaches at best is 1,032.
pub const MAX_SPOOL_RATIO: u64 = 1_100;
/// Decompressed bytes that any layer may keep in a temporary file.
pub const SPOOL_ALLOWANCE: u64 = 1 << 30;
/// Most bytes of a layer read, and of its content decoded, to find its first file's header.
pub const MAX_HEAD_BYTES: u64 = 1 << 20;
/// Bytes that opening a model may read and decode to find what its layers hold, and how many more for
/// each byte of the manifest. A layer of an ordinary tool takes some 5,000, its descriptor 400.
pub const OPENING_BYTES: u64 = 64 << 20;
/// See [`OPENING_BYTES`].
pub const OPENING_BYTES_PER_MANIFEST_BYTE: u64 = 64;
/// Largest file that keeps what is known of one layer between runs.
pub const MAX_INDEX_BYTES: u64 = 512 << 20;
/// Most bytes that all of them may take; the oldest go first.
pub const MAX_INDEX_DIR_BYTES: u64 = 1 << 30;
