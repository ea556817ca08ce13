//! A model mounted and served by the calling process.
//!
//! Nothing of the process is changed but that it has some threads and descriptors more: it is not
//! started again, it does not fork, and its signals, panic hook and allocator stay as they are. (Users
//! other than root mount through `fusermount3`, which is started and waited for.)
//!
//! A process must not read from a mount that it serves itself where it may be killed meanwhile: a
//! thread that waits for its own answer keeps the connection, and both stay for ever.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::address_space;
use super::at::attach::{self, Attached};
use super::at::given::{self, Named};
use super::at::held::Detached;
use super::at::place::{self, Place};
use super::at::target::Target;
use super::options::MountOptions;
use super::serve::filesystem::Process;
use super::served::Served;
use super::status::Status;
use crate::error::{Error, Result};
use crate::model::Model;

/// How long readers may go on after the mount was asked to end.
const DRAIN: Duration = Duration::from_millis(4500);

/// A mount that this process serves. Dropping it unmounts it, and waits for nobody; one that somebody
/// else has made is served until they unmount it.
pub struct Mounted {
    // Dropped first, so that nobody reads any more when the rest goes.
    attached: Attached,
    served: Served,
    end: Receiver<Result<()>>,
}

/// Mounts a model and serves it from threads of this process. Returns when it answers.
///
/// # Errors
/// Those of [`Model::open`], and [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the
/// mount point or the system does not allow the mount. Nothing stays mounted then.
pub fn mount(options: &MountOptions) -> Result<Mounted> {
    if let Some(Named::Connection(_)) = given::descriptor(&options.mountpoint)? {
        return Err(Error::usage(format!(
            "{}: is a FUSE connection; take it over, and give it to mount::serve_connection",
            place::mount_point(&options.mountpoint)
        )));
    }
    address_space::check(options)?;
    start(Target::Place(Place::prepare(options, None, &[])?), options)
}

/// Serves a model over a connection that somebody else has mounted: an open `/dev/fuse`, whose number
/// mount(2) was told. Returns when it answers. `options.mountpoint` only says where that is.
///
/// # Errors
/// Those of [`Model::open`]; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for options that only whoever
/// mounts can set, and [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the connection is
/// not mounted, or was served before.
pub fn serve_connection(connection: OwnedFd, options: &MountOptions) -> Result<Mounted> {
    address_space::check(options)?;
    start(
        Target::prepare(options, Some(connection), None, &[])?,
        options,
    )
}

fn start(target: Target, options: &MountOptions) -> Result<Mounted> {
    let mountpoint = target.path().to_path_buf();
    let model = Model::open(&options.archive, &options.open_options())?;
    let served = Served::new(model, mountpoint, Process::default(), None, options)?;
    let (connection, mountable) = attach::connect(target, options)?;
    let ours = connection.try_clone();
    let ours = ours.map_err(Error::io("use", "the FUSE connection"))?;
    let (ended, end) = channel();
    // Who has dropped the handle does not ask.
    served.start(connection, options, move |result| drop(ended.send(result)))?;
    mountable.raise_readahead(options)?;
    Ok(Mounted {
        attached: mountable.attach(ours)?,
        served,
        end,
    })
}

impl Mounted {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        self.served.mountpoint()
    }

    /// What was done so far.
    pub fn status(&self) -> Status {
        self.served.status()
    }

    /// Waits until it is unmounted, by whomever.
    ///
    /// # Errors
    /// When serving has failed.
    pub fn wait(mut self) -> Result<()> {
        let result = self.end.recv().unwrap_or(Ok(()));
        // After an abort of the connection the dead mount is still there.
        self.attached.detach()?;
        result
    }

    /// Unmounts it: nobody new gets in, those who read may finish. Returns false when some still do
    /// after a few seconds: they are served as long as this process lives.
    ///
    /// # Errors
    /// When it cannot be unmounted, because somebody else has made it or the system refuses, or serving
    /// has failed.
    pub fn unmount(mut self) -> Result<bool> {
        if !self.attached.is_ours() {
            return Err(Error::environment(
                "the mount",
                "was made by somebody else, who unmounts it",
            ));
        }
        if self.attached.detach()? == Detached::Busy {
            return Err(Error::environment("the mount", "is busy"));
        }
        match self.end.recv_timeout(DRAIN) {
            Ok(result) => result.map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Ok(true),
        }
    }
}
