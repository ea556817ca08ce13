//! The original Python tool: the only manifest is the root document, in snake case.

use super::system::{Head, System};
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::layer::Reading;
use crate::oci::{Stated, media_type};

/// Archives of the original tool. It took any file name, and stored symbolic links as they were.
pub(super) struct Original;

impl System for Original {
    fn name(&self) -> &'static str {
        "aumai"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        head.original_spelling
    }

    fn reading(&self, stated: &Stated, _: Option<&str>) -> Reading {
        match media_type::names_tar(&stated.media_type) {
            true => Reading::Archive,
            false => Reading::File,
        }
    }

    fn path(&self, stated: &str) -> Result<EntryPath> {
        EntryPath::of_original(stated)
    }

    fn leaves_out_dead_links(&self) -> bool {
        true
    }
}
