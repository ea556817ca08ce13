//! Blobs of a registry: by ranges, or as documents.

use std::sync::Arc;
use std::time::SystemTime;

use super::answer::Range;
use super::client::{Ask, Client};
use super::flow::{Flows, Plan};
use super::patience::Patience;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::blob::{ReadAt, check_range};

/// Much at a time: each question costs a round trip.
const PIECE: usize = limits::MAX_CHUNK_BYTES as usize;

/// What all blobs of a source have in common.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) flows: Flows,
}

/// A blob that is read by ranges.
pub(super) struct RangeBlob {
    shared: Arc<Shared>,
    digest: Digest,
    size: u64,
}

impl RangeBlob {
    pub(super) fn new(shared: Arc<Shared>, digest: Digest, size: u64) -> RangeBlob {
        RangeBlob {
            shared,
            digest,
            size,
        }
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    fn range(&self, first: u64, last: u64) -> Range {
        let total = Some(self.size);
        Range { first, last, total }
    }

    /// Asks for the bytes of `buf` and for no others; again for what is missing when an answer breaks off.
    fn ask(&self, buf: &mut [u8], offset: u64, patience: &mut Patience) -> Result<()> {
        let (path, what) = (format!("blobs/{}", self.digest), self.what());
        let client = &self.shared.client;
        let mut done = 0;
        loop {
            let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                return Ok(());
            };
            let first = offset + done as u64;
            let ask = Ask {
                path: &path,
                accept: None,
                range: Some(self.range(first, first + rest.len() as u64 - 1)),
                what: &what,
            };
            let mut answer = client.open(&ask, patience).map_err(unlike_a_name)?;
            let (read, why) = answer.fill(rest, patience);
            done += read;
            match why {
                None => answer.finish(),
                Some(why) => {
                    log::debug!("{what}: {why}; it is tried again");
                    // Its connection is of no use any more, and others wait for its place.
                    drop(answer);
                    if !patience.wait(None) {
                        return Err(client.gave_up(&ask, &why));
                    }
                }
            }
        }
    }

    /// Begins a flow: asks for all of it, for others to go on from.
    fn begin(&self, part: &super::flow::Part, offset: u64, patience: &mut Patience) -> Result<()> {
        let (path, what) = (format!("blobs/{}", self.digest), self.what());
        let ask = Ask {
            path: &path,
            accept: None,
            range: Some(self.range(offset, part.flow.end - 1)),
            what: &what,
        };
        match self.shared.client.open(&ask, patience) {
            Ok(answer) => {
                part.flow.start(answer);
                Ok(())
            }
            Err(error) => {
                part.flow.end();
                self.shared.flows.remove(&part.flow);
                Err(unlike_a_name(error))
            }
        }
    }
}

/// A blob that a manifest lists and a registry lacks is no name that a user got wrong.
fn unlike_a_name(error: Error) -> Error {
    match error {
        Error::NotFound { subject, problem } => Error::environment(subject, problem),
        error => error,
    }
}

impl ReadAt for RangeBlob {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(&self.what(), self.size, offset, buf.len())?;
        let Shared { client, flows } = &*self.shared;
        let mut patience = Patience::new(client.timeout, buf.len() as u64);
        let (mut buf, mut at) = (buf, offset);
        while !buf.is_empty() {
            let part = match flows.plan(&self.digest, self.size, at, buf.len()) {
                Plan::Alone => return self.ask(buf, at, &mut patience),
                Plan::Begin(part) => {
                    self.begin(&part, at, &mut patience)?;
                    part
                }
                Plan::Join(part) => part,
            };
            let (wanted, _) = buf.split_at_mut(part.length.min(buf.len()));
            let done = part.read(flows, wanted, &mut patience, client.stall());
            at += done as u64;
            let broken = done < wanted.len();
            buf = buf.get_mut(done..).unwrap_or_default();
            if broken {
                return self.ask(buf, at, &mut patience);
            }
        }
        Ok(())
    }

    fn would_wait(&self, _: u64, _: u64) -> bool {
        true
    }

    fn piece(&self) -> usize {
        PIECE
    }
}

/// Gets what was read.
type Hears = dyn Fn(&[u8]) + Send + Sync;

/// A manifest or an index, which a registry keeps apart from blobs, and gives as a whole.
pub(super) struct DocumentBlob {
    shared: Arc<Shared>,
    digest: Digest,
    size: u64,
    /// Hears of what was read.
    read: Box<Hears>,
}

impl DocumentBlob {
    pub(super) fn new(
        shared: Arc<Shared>,
        digest: Digest,
        size: u64,
        read: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> DocumentBlob {
        DocumentBlob {
            shared,
            digest,
            size,
            read: Box::new(read),
        }
    }
}

impl ReadAt for DocumentBlob {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let what = format!("manifest {}", self.digest);
        check_range(&what, self.size, offset, buf.len())?;
        let document = fetch(
            &self.shared.client,
            &self.digest.to_string(),
            &what,
            self.size,
        )?;
        (self.read)(&document.bytes);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let wanted = document.bytes.get(start..start.saturating_add(buf.len()));
        let wanted = wanted.ok_or_else(|| {
            let found = document.bytes.len();
            Error::corrupt(
                &what,
                format!("has {found} bytes, its descriptor says {}", self.size),
            )
        })?;
        buf.copy_from_slice(wanted);
        Ok(())
    }

    fn would_wait(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// A document of a registry.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: Option<String>,
    /// As the registry states it, checked.
    pub(super) digest: Option<Digest>,
    pub(super) fetched: SystemTime,
}

/// What documents a manifest may be.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Fetches a manifest or an index by its tag or digest, of at most `limit` bytes. It is what its digest says,
/// where it is asked for by that or the registry states one.
///
/// # Errors
/// As [`Client::open`]; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the digest is another.
pub(super) fn fetch(client: &Client, name: &str, what: &str, limit: u64) -> Result<Document> {
    let path = format!("manifests/{name}");
    let ask = Ask {
        path: &path,
        accept: Some(ACCEPT),
        range: None,
        what,
    };
    let mut patience = Patience::new(client.timeout, limit);
    loop {
        let mut answer = client.open(&ask, &mut patience)?;
        let stated = answer.bytes.digest.take();
        let media_type = answer.bytes.media_type.take();
        match answer.read_all(limit, &mut patience) {
            Ok(Some(bytes)) => {
                let digest = check(name, stated.as_deref(), &bytes, what)?;
                answer.finish();
                return Ok(Document {
                    bytes,
                    media_type,
                    digest,
                    fetched: SystemTime::now(),
                });
            }
            Ok(None) => {
                return Err(Error::malformed(
                    what,
                    format!("has more than {limit} bytes"),
                ));
            }
            Err(why) => {
                drop(answer);
                if !patience.wait(None) {
                    return Err(client.gave_up(&ask, &why));
                }
            }
        }
    }
}

/// Compares a document with the digest that it is asked for by, and with the one that the registry states.
fn check(name: &str, stated: Option<&str>, bytes: &[u8], what: &str) -> Result<Option<Digest>> {
    let wanted = name.parse::<Digest>().ok();
    let stated = stated.and_then(|text| text.parse::<Digest>().ok());
    for expected in [wanted, stated].into_iter().flatten() {
        let found = Digest::of(expected.algorithm(), bytes);
        if found != expected {
            let problem = format!("its content is {found}, and the registry says {expected}");
            return Err(Error::corrupt(what, problem));
        }
    }
    Ok(wanted.or(stated))
}
