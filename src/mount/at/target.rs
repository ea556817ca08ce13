//! What a model is mounted on: a directory, or a connection that somebody else has mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::given::Given;
use super::place::Place;
use crate::error::Result;
use crate::mount::options::MountOptions;

/// What the mount point of some options means.
#[derive(Debug)]
pub enum Target {
    /// A directory, which gets a mount of ours.
    Place(Place),
    /// A mount of somebody else, which is served.
    Given(Given),
}

impl Target {
    /// Checks it: the connection where there is one, else the directory: the one that is given, or the one
    /// that the path leads to. What lies `apart` (what it is, and where) must not be below it.
    ///
    /// # Errors
    /// Those of [`Given::new`] and [`Place::prepare`].
    pub fn prepare(
        options: &MountOptions,
        connection: Option<OwnedFd>,
        directory: Option<OwnedFd>,
        apart: &[(&str, &Path)],
    ) -> Result<Target> {
        Ok(match connection {
            Some(connection) => Target::Given(Given::new(connection, options)?),
            None => Target::Place(Place::prepare(options, directory, apart)?),
        })
    }

    /// Where it was when it was checked.
    pub fn path(&self) -> &Path {
        match self {
            Target::Place(place) => place.path(),
            Target::Given(given) => &given.path,
        }
    }
}
