//! A model that is served over a connection to the kernel, wherever that is mounted.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::MountOptions;
use super::prefetch::filler::Filler;
use super::prefetch::work::{self, Prefetch};
use super::serve::adapter::Adapter;
use super::serve::filesystem::{Process, Shared};
use super::status::Status;
use super::{resident, session};
use crate::error::Result;
use crate::model::Model;

/// A model, and what was done with it since it is served.
#[derive(Clone)]
pub struct Served(Arc<Shared>);

impl Served {
    /// Gets a model ready to be served at a mount point. A process that does nothing else says with
    /// `at_start` how many bytes of memory it takes of its own accord: what it has beyond that is what
    /// the open model takes, as measured. `None` for any other: its threads may take what they like
    /// meanwhile, and what the model takes is counted.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the open model leaves too little
    /// memory to serve it.
    pub fn new(
        model: Model,
        mountpoint: PathBuf,
        process: Process,
        at_start: Option<u64>,
        options: &MountOptions,
    ) -> Result<Served> {
        model.settle(match at_start {
            Some(at_start) => resident::anonymous().saturating_sub(at_start),
            None => model.memory(),
        })?;
        for note in model.notes() {
            log::warn!("{note}");
        }
        let us = || rustix::process::geteuid().as_raw();
        let our_group = || rustix::process::getegid().as_raw();
        let owner = (
            options.uid.unwrap_or_else(us),
            options.gid.unwrap_or_else(our_group),
        );
        let mut shared = Shared::new(model, mountpoint, options.cache_bytes, owner);
        shared.process = process;
        Ok(Served(Arc::new(shared)))
    }

    /// Serves over a connection, in threads of its own, until that ends; `ended` is called with how
    /// it did. Returns when requests are answered.
    ///
    /// # Errors
    /// When the connection or the system fails.
    pub fn start(
        &self,
        connection: OwnedFd,
        options: &MountOptions,
        ended: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        let adapter = Adapter::new(Arc::clone(&self.0), options);
        session::start(adapter, connection, options.threads, ended)
    }

    /// Starts to prefetch, through the process `pid`. Calls `over` when that is needed no more.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn prefetch(
        &self,
        filler: Filler,
        pid: u32,
        over: impl FnOnce() + Send + 'static,
    ) -> Result<Prefetch> {
        work::start(Arc::clone(&self.0), filler, pid, over)
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.0.mountpoint
    }

    /// What was done so far.
    pub fn status(&self) -> Status {
        self.0.status()
    }
}
