//! What a manifest's layers mean: the files that are read from them.

use std::sync::Arc;

use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::layer::Reading;
use crate::oci::Stated;

/// One layer of a manifest.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its place in the manifest's list.
    pub number: usize,
    /// The name of its file, as stated.
    pub path: Option<Box<str>>,
    /// Shared with who opens it: of many layers a list of these would be held twice while it grows.
    pub stated: Arc<Stated>,
}

impl Layer {
    /// As one of any number of files, with names of their own.
    pub fn into_archive(self, names: Names) -> ArchiveLayer {
        ArchiveLayer {
            part: Part {
                number: self.number,
                stated: self.stated,
                reading: Reading::Members,
            },
            names,
        }
    }
}

/// Names a layer in messages.
pub fn name_of_layer(number: usize, path: Option<&str>, digest: &Digest) -> String {
    match path {
        Some(path) => format!("layer {path} ({digest})"),
        None => format!("layer {number} ({digest})"),
    }
}

/// A file of the model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path.
    pub path: EntryPath,
    /// What it is read from, in order.
    pub parts: Parts,
}

/// What (a part of) a file is read from.
#[derive(Debug, Clone)]
pub struct Part {
    /// The layer's place in the manifest's list.
    pub number: usize,
    /// What the manifest states about the layer.
    pub stated: Arc<Stated>,
    /// Which member of the layer it is: all of it, or what is packed in it under the file's name.
    pub reading: Reading,
}

impl Part {
    /// What is stated about the file, and not about the layer of several that it is in.
    pub fn of_file(&self) -> Option<&Stated> {
        (self.reading != Reading::Members).then_some(&*self.stated)
    }
}

/// What the layers of a manifest hold.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Files that the manifest names.
    pub files: Vec<Entry>,
    /// Layers whose files have names of their own, in the order of the manifest.
    pub archives: Vec<ArchiveLayer>,
}

/// A layer of any number of files.
#[derive(Debug, Clone)]
pub struct ArchiveLayer {
    /// The layer.
    pub part: Part,
    /// What its names count from.
    pub names: Names,
}

/// What the names in a layer of any number of files count from.
#[derive(Debug, Clone)]
pub enum Names {
    /// The root of the model.
    Root,
    /// The root; but where the layer holds one file of this base name, it is the file of this path.
    File(EntryPath),
    /// This directory, or the one that this file is in, where they do not say so themselves.
    Below(EntryPath),
}

impl ArchiveLayer {
    /// Names the layer in messages.
    pub fn subject(&self) -> String {
        name_of_layer(self.part.number, None, &self.part.stated.digest)
    }
}

/// The parts of a file, in order; one at least, and of nearly all files no more.
#[derive(Debug, Clone)]
pub struct Parts {
    first: Part,
    others: Box<[Part]>,
}

impl Parts {
    /// Of a first part, and those that follow it.
    pub fn new(first: Part, others: Vec<Part>) -> Parts {
        Parts {
            first,
            others: others.into(),
        }
    }

    /// The first.
    pub fn first(&self) -> &Part {
        &self.first
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The only one, where it is one.
    pub fn only(&self) -> Option<&Part> {
        self.others.is_empty().then_some(&self.first)
    }

    /// The digests of their layers, for people.
    pub fn digests(&self) -> String {
        self.joined(|stated| stated.digest.to_string())
    }

    /// What is stated of each layer, for people.
    pub fn joined(&self, what: impl Fn(&Stated) -> String) -> String {
        let texts = self.iter().map(|part| what(&part.stated));
        texts.collect::<Vec<_>>().join(", ")
    }
}

impl From<Part> for Parts {
    fn from(first: Part) -> Parts {
        Parts::new(first, Vec::new())
    }
}
