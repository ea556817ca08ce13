//! From what a manifest's layers hold to files: by the manifest's names alone, or put together with names that
//! layers have themselves.

use super::archives;
use super::builder;
use super::built::Built;
use super::notes::Notes;
use super::opening::Opening;
use super::subtree::Subtree;
use crate::error::Result;
use crate::systems::{Contents, System};

/// Opens the layers of a manifest, and makes files of what they hold.
///
/// # Errors
/// Those of opening them; and where files cannot stand beside each other.
pub(super) fn open(
    mut contents: Contents,
    system: &dyn System,
    subtree: &Subtree,
    mut opening: Opening<'_>,
    notes: &mut Notes,
) -> Result<Built> {
    let opened = contents.files.iter().map(|entry| opening.open(entry));
    let opened = opened.collect::<Result<Vec<_>>>()?;
    let layers = archives::layers(&mut contents, &opened);
    let files = contents.files;
    if let Some(note) = opening.take_note() {
        notes.push(note);
    }
    match layers.is_empty() && *subtree == Subtree::Usual {
        true => builder::link(files, opened, system, notes, opening.effort()),
        false => {
            let opening = &mut opening;
            archives::compose(&files, &opened, layers, system, subtree, opening, notes)
        }
    }
}
