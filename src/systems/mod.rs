//! The systems that ship models as OCI artifacts: one file each.
//!
//! A [`System`] knows what its manifests mean: the files that their layers hold, each an [`Entry`];
//! which layers are archives to be opened, and which are files as they are; what a path may be. [`of`]
//! finds the system of a manifest; what nobody recognises is an `artifact` of a registry client.
//!
//! The rules are those of `docs/systems.md`.

mod about;
mod artifact;
mod docker;
mod entry;
mod image;
mod kitops;
mod modelpack;
mod numbered;
mod ollama;
mod original;
mod own;
mod system;

pub use about::About;
pub use entry::{ArchiveLayer, Contents, Entry, Layer, Names, Part, Parts, name_of_layer};
pub use system::{Config, Head, System};

/// The first that recognises a manifest reads it.
const SYSTEMS: [&dyn System; 8] = [
    &original::Original,
    &own::Own,
    &modelpack::ModelPack,
    &docker::Docker,
    &kitops::KitOps,
    &ollama::Ollama,
    &image::Image,
    &artifact::Artifact,
];

/// The system of a manifest.
pub fn of(head: &Head<'_>) -> &'static dyn System {
    let found = SYSTEMS.into_iter().find(|system| system.recognises(head));
    found.unwrap_or(&artifact::Artifact)
}

#[cfg(test)]
mod tests;
