//! A registry as a source of blobs, by the distribution specification.
//!
//! - Nothing is fetched before it is read, and of a blob no more than is read, but where reads follow each other.
//! - A tag is looked up once. From then on the manifest is the one of that digest, whatever the tag comes to
//!   mean.
//! - What is not there in time is an error of the environment, and the next read tries again.
//! - No secret is in a message, and none goes to anybody but the registry, or the server that gives its tokens.

mod answer;
mod blob;
mod challenge;
mod client;
mod connections;
mod credentials;
mod flow;
mod helper;
mod options;
mod outside;
mod patience;
mod reference;
mod secret;
mod tokens;
mod transport;
mod trust;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use self::answer::Range;
use self::blob::{Document, DocumentBlob, RangeBlob, Shared, fetch};
use self::client::{Ask, Client};
use self::flow::Flows;
use self::outside::Asked;
use self::patience::Patience;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::memory::promise;
use crate::oci::{Index, media_type};
use crate::source::blob::{BlobSource, ReadAt, Root};

pub use self::credentials::{Found, find as find_credential};
pub use self::options::Options;
pub use self::outside::{Outside, ask_instead};
pub use self::reference::Reference;
pub use self::secret::{Credential, Secret};

/// Largest root document that is kept: opening a model looks at it twice, and so may whoever lists it.
const MAX_KEPT: usize = 1 << 20;

/// Of one connection: what it is read and written through, and its TLS session.
const CONNECTION: usize = transport::INPUT_BYTES + transport::OUTPUT_BYTES + (64 << 10);
/// All that a source takes, whatever is read through it.
const MEMORY: usize = (connections::MOST + 3 * transport::IDLE) * CONNECTION
    + MAX_KEPT
    + client::PLACES.get() * client::MAX_PLACE_BYTES
    + (1 << 20); // certificates, digests, the ends of reads
const _: () = assert!(MEMORY as u64 <= promise::REGISTRY);
// A flow has a connection all the time; others must find one beside them.
const _: () = assert!(flow::FLOWS * 2 <= connections::MOST);

/// A model in a registry. Nothing is asked of the registry before the model is read.
pub struct RegistrySource {
    reference: Reference,
    shared: Arc<Shared>,
    root: Mutex<Known>,
    /// What indexes list: a registry keeps manifests apart.
    listed: Arc<Mutex<HashSet<Digest>>>,
}

/// What is known of the root document.
#[derive(Default)]
struct Known {
    /// What the tag meant when it was looked up.
    digest: Option<Digest>,
    root: Option<Root>,
    fetched: Option<SystemTime>,
}

impl RegistrySource {
    /// For a reference. Reads certificates, and nothing else.
    ///
    /// # Errors
    /// When certificates that were set up cannot be read.
    pub fn new(reference: Reference, options: &Options) -> Result<RegistrySource> {
        RegistrySource::asking(Asked::default(), reference, options)
    }

    fn asking(asked: Asked, reference: Reference, options: &Options) -> Result<RegistrySource> {
        let client = Client::new(&reference, options, asked)?;
        Ok(RegistrySource {
            reference,
            shared: Arc::new(Shared {
                client,
                flows: Flows::new(),
            }),
            root: Mutex::default(),
            listed: Arc::default(),
        })
    }

    fn fetch_root(&self, known: &mut Known, limit: u64) -> Result<Root> {
        let name = match &known.digest {
            Some(digest) => digest.to_string(),
            None => self.reference.wanted(),
        };
        let what = format!("manifest {name}");
        let document = fetch(&self.shared.client, &name, &what, limit)?;
        let digest = document.digest;
        known.digest =
            Some(digest.unwrap_or_else(|| Digest::of(Algorithm::Sha256, &document.bytes)));
        known.fetched.get_or_insert(document.fetched);
        let root = root_of(document);
        if let Root::Index(bytes) = &root {
            list(&self.listed, bytes);
        }
        let (Root::Index(bytes) | Root::Manifest(bytes)) = &root;
        if bytes.len() <= MAX_KEPT {
            known.root = Some(root.clone());
        }
        Ok(root)
    }

    /// How large a blob is; `None` where the registry does not have it.
    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        let (path, what) = (format!("blobs/{digest}"), format!("blob {digest}"));
        // Not by HEAD, which some refuse that answer everything else.
        let ask = Ask {
            path: &path,
            accept: None,
            range: Some(Range {
                first: 0,
                last: 0,
                total: None,
            }),
            what: &what,
        };
        let client = &self.shared.client;
        match client.open(&ask, &mut Patience::new(client.timeout, 0)) {
            Ok(answer) => {
                let total = answer.bytes.total;
                answer.finish();
                let unknown =
                    || Error::environment(&what, "the registry does not say how large it is");
                total.ok_or_else(unknown).map(Some)
            }
            // It has not even a first byte.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobSource for RegistrySource {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let size = match size {
            Some(size) => size,
            None => match self.size_of(digest)? {
                Some(size) => size,
                None => return Ok(None),
            },
        };
        let shared = Arc::clone(&self.shared);
        if !lock(&self.listed).contains(digest) {
            return Ok(Some(Arc::new(RangeBlob::new(shared, *digest, size))));
        }
        let listed = Arc::clone(&self.listed);
        let read = move |bytes: &[u8]| list(&listed, bytes);
        Ok(Some(Arc::new(DocumentBlob::new(
            shared, *digest, size, read,
        ))))
    }

    fn root(&self, limit: u64) -> Result<Option<Root>> {
        let mut known = self.known();
        match &known.root {
            Some(root) => Ok(Some(root.clone())),
            None => self.fetch_root(&mut known, limit).map(Some),
        }
    }

    /// When it was fetched first.
    fn time(&self) -> Option<Duration> {
        let fetched = self.known().fetched?;
        fetched.duration_since(SystemTime::UNIX_EPOCH).ok()
    }

    fn memory(&self) -> u64 {
        promise::REGISTRY
    }
}

/// What a document is: what the registry calls it, or else what it calls itself.
fn root_of(document: Document) -> Root {
    let stated = document.media_type.unwrap_or_default();
    let stated = stated.split(';').next().unwrap_or_default().trim();
    let index = match media_type::is_index(stated) || media_type::is_manifest(stated) {
        true => media_type::is_index(stated),
        false => {
            let value: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
            let own = value.get("mediaType").and_then(Value::as_str);
            own.map_or_else(|| value.get("manifests").is_some(), media_type::is_index)
        }
    };
    match index {
        true => Root::Index(document.bytes),
        false => Root::Manifest(document.bytes),
    }
}

/// Takes note of what an index lists. One that is none, or is wrong, is told by who resolves it.
fn list(listed: &Mutex<HashSet<Digest>>, bytes: &[u8]) {
    let mut listed = lock(listed);
    let _ = Index::read(bytes, "index", &mut |_, descriptor| {
        if listed.len() < 2 * limits::MAX_MANIFESTS {
            listed.insert(descriptor.digest);
        }
        Ok(())
    });
}

/// Nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
