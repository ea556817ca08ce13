//! Blobs in memory: for tests, and for documents built on the fly.
