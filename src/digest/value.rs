//! Content digests as OCI spells them: `algorithm:lower-case hex`.
//!
//! Source: OCI image specification, "Descriptors", section "Digests". SHA-256 and SHA-512 must be
//! supported; BLAKE3 is registered too. Anything else, upper case and wrong lengths are refused.

use std::fmt;

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: what every registry and OCI tool uses.
    Sha256,
    /// SHA-512.
    Sha512,
    /// BLAKE3 with 256 bits of output: the default of chunk digests.
    Blake3,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// Digest length in bytes.
    #[allow(clippy::len_without_is_empty)] // a length, not a container
    pub fn len(self) -> usize {
        match self {
            Algorithm::Sha256 | Algorithm::Blake3 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Algorithm> {
        [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3]
            .into_iter()
            .find(|a| a.name() == name)
    }
}

/// A digest: an algorithm and its output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    pub(super) algorithm: Algorithm,
    /// Output, zero-padded to the longest algorithm.
    pub(super) bytes: [u8; 64],
}

impl Digest {
    /// A digest from its raw output; `None` when the length is not the algorithm's.
    pub fn from_bytes(algorithm: Algorithm, output: &[u8]) -> Option<Digest> {
        let mut bytes = [0; 64];
        bytes
            .get_mut(..algorithm.len())?
            .copy_from_slice((output.len() == algorithm.len()).then_some(output)?);
        Some(Digest { algorithm, bytes })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw output, [`Algorithm::len`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }

    /// The lower-case hexadecimal output, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.as_bytes()
            .iter()
            .fold(String::with_capacity(128), |mut s, b| {
                let _ = write!(s, "{b:02x}");
                s
            })
    }

    /// Where an OCI image layout keeps the blob: `blobs/<algorithm>/<hex>`.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex())
    }

    /// The digest that a path `blobs/<algorithm>/<hex>` names; `None` for any other path.
    pub fn from_blob_path(path: &str) -> Option<Digest> {
        let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
        format!("{algorithm}:{hex}").parse().ok()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
