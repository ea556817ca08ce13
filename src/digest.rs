//! Content digests as OCI spells them: `algorithm:lower-case hex`.
//!
//! Source: OCI image specification, "Descriptors", section "Digests". SHA-256 and SHA-512 must be
//! supported; BLAKE3 is registered too. Anything else, upper case and wrong lengths are refused.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Error, Result};

mod twin;

pub(crate) use twin::Sha256;

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

    fn from_name(name: &str) -> Option<Algorithm> {
        [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3]
            .into_iter()
            .find(|a| a.name() == name)
    }
}

/// A digest: an algorithm and its output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Output, zero-padded to the longest algorithm.
    bytes: [u8; 64],
}

impl Digest {
    /// The digest of `data`.
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    /// The SHA-256 of `data`.
    pub fn sha256(data: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, data)
    }

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

impl FromStr for Digest {
    type Err = Error;

    fn from_str(s: &str) -> Result<Digest> {
        let refuse = |rule: &str| Error::malformed(format!("digest \"{s}\""), rule);
        let (name, hex) = s
            .split_once(':')
            .ok_or_else(|| refuse("is not of the form algorithm:hex"))?;
        let algorithm = Algorithm::from_name(name).ok_or_else(|| {
            refuse("has an unknown algorithm; sha256, sha512 and blake3 are supported")
        })?;
        if hex.len() != algorithm.len() * 2 {
            return Err(refuse(&format!(
                "has {} hexadecimal digits, {} needs {}",
                hex.len(),
                name,
                algorithm.len() * 2
            )));
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(refuse("is not lower-case hexadecimal")),
            }
        }
        Ok(Digest { algorithm, bytes })
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Hashes a stream.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
        })
    }

    /// Adds `data` to the stream.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(data),
            State::Sha512(h) => h.update(data),
            State::Blake3(h) => {
                h.update(data);
            }
        }
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let algorithm = match self.0 {
            State::Sha256(h) => {
                bytes[..32].copy_from_slice(&h.finalize());
                Algorithm::Sha256
            }
            State::Sha512(h) => {
                bytes.copy_from_slice(&h.finalize());
                Algorithm::Sha512
            }
            State::Blake3(h) => {
                bytes[..32].copy_from_slice(h.finalize().as_bytes());
                Algorithm::Blake3
            }
        };
        Digest { algorithm, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn round_trips_through_text() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
            let digest = Digest::of(algorithm, b"abc");
            assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            assert_eq!(Digest::from_blob_path(&digest.blob_path()), Some(digest));
            assert_eq!(
                Digest::from_bytes(algorithm, digest.as_bytes()),
                Some(digest)
            );
        }
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
    }

    #[test]
    fn d1_refuses_what_is_not_a_digest() {
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:../../x",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
