//! Digests of a file, computed while all of it passes.

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};

/// Hashes a file by SHA-256, and by every other algorithm that somebody stated a digest of.
#[derive(Clone)]
pub(super) struct FileHasher {
    sha256: Hasher,
    others: Vec<Hasher>,
}

impl FileHasher {
    pub(super) fn new(also: &[Algorithm]) -> FileHasher {
        let known = [Algorithm::Sha512, Algorithm::Blake3];
        FileHasher {
            sha256: Hasher::new(Algorithm::Sha256),
            others: known
                .into_iter()
                .filter(|algorithm| also.contains(algorithm))
                .map(Hasher::new)
                .collect(),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        for other in &mut self.others {
            other.update(bytes);
        }
    }

    pub(super) fn finish(self) -> FileDigests {
        FileDigests {
            sha256: self.sha256.finish(),
            others: self.others.into_iter().map(Hasher::finish).collect(),
        }
    }
}

/// The digests of a file whose every byte was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigests {
    /// Its SHA-256.
    pub sha256: Digest,
    others: Vec<Digest>,
}

impl FileDigests {
    /// Compares what somebody stated about the file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is another digest, or of an
    /// algorithm that was not computed; `subject` names the file.
    pub fn compare(&self, stated: &Digest, subject: impl FnOnce() -> String) -> Result<()> {
        let mut all = [self.sha256].into_iter().chain(self.others.iter().copied());
        match all.find(|found| found.algorithm() == stated.algorithm()) {
            Some(found) if found == *stated => Ok(()),
            Some(found) => Err(Error::corrupt(
                subject(),
                format!("the file is {found}, the manifest says {stated}"),
            )),
            None => Err(Error::corrupt(
                subject(),
                format!("the file's digest was not compared with {stated}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d7_every_algorithm_that_was_stated_is_compared() {
        let mut hasher = FileHasher::new(&[Algorithm::Blake3, Algorithm::Sha256]);
        hasher.update(b"ab");
        hasher.update(b"c");
        let digests = hasher.finish();
        assert_eq!(digests.sha256, Digest::sha256(b"abc"));
        let compare = |stated: Digest| digests.compare(&stated, || "f".into());
        assert!(compare(Digest::sha256(b"abc")).is_ok());
        assert!(compare(Digest::of(Algorithm::Blake3, b"abc")).is_ok());
        for false_one in [
            Digest::sha256(b"x"),
            Digest::of(Algorithm::Blake3, b"x"),
            Digest::of(Algorithm::Sha512, b"abc"),
        ] {
            assert!(compare(false_one).is_err(), "{false_one}");
        }
    }
}
