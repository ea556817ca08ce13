//! Pack machine-learning models as OCI artifacts, and read them in place, verified.
//!
//! # Layers of the code
//! Imports point strictly downward; `tests/layering.rs` enforces it.
//!
//! ```text
//! main, cli, commands/         the binary                                  9
//! mount/  pack/  unpack/       users of Model                              8
//! model/                       a tree of files                             7
//! systems/                     what each ecosystem means                   6
//! layer/                       bytes of one file                           5
//! stream/                      bytes that come out of one blob             4
//! source/                      where blobs are                             3
//! oci/  tar/  codec/  memory/  parsers of untrusted bytes                  2
//! digest  entry_path  printable    vocabulary                              1
//! limits  error  work  byte_size  files/
//! ```

#![cfg_attr(not(test), warn(clippy::too_many_lines))]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::unwrap_used))]

pub mod byte_size;
pub mod codec;
pub mod digest;
pub mod entry_path;
pub mod error;
pub mod files;
pub mod layer;
pub mod limits;
pub mod memory;
pub mod model;
pub mod mount;
pub mod oci;
pub mod pack;
pub mod printable;
pub mod source;
pub mod stream;
pub mod systems;
pub mod tar;
pub mod unpack;
pub mod work;

pub use codec::Compression;
pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorKind, Result};
pub use model::Model;
pub use mount::mount;
pub use oci::{OciConfig, OciManifest};
pub use pack::{ModelLayer, ModelPackager};
pub use unpack::ModelUnpackager;

/// The examples of the README are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
