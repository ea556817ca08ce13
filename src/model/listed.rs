//! The manifests that indexes list: of each descriptor what decides which is the model's, and no more.
//!
//! An index of 16 MiB can have a million annotations. None is held longer than it takes to read its
//! descriptor.

use crate::digest::Digest;
use crate::oci::{Descriptor, annotations};

/// A blob that is read as a whole, or carried by its descriptor.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// An inline copy of it.
    pub(super) data: Option<Vec<u8>>,
}

impl From<Descriptor> for Carried {
    fn from(descriptor: Descriptor) -> Carried {
        Carried {
            digest: descriptor.digest,
            size: descriptor.size,
            data: descriptor.data,
        }
    }
}

/// A manifest, or a nested index, that an index lists.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) blob: Carried,
    pub(super) media_type: String,
    /// The names that the index gives it.
    pub(super) names: Vec<String>,
    /// It accompanies a model, by its annotations: a build attestation, or what cosign keeps.
    pub(super) companion: bool,
    /// It is an image for this machine.
    pub(super) for_this_machine: bool,
}

impl Listed {
    /// What a descriptor of an index says.
    pub(super) fn of(mut descriptor: Descriptor) -> Listed {
        const ATTESTATION: &str = "vnd.docker.reference.type";
        let kind = descriptor.annotation("kind").unwrap_or_default();
        let kind = kind.strip_prefix("dev.cosignproject.cosign/");
        let beside = kind.is_some_and(|kind| kind != "image" && kind != "imageIndex");
        let attests = descriptor.annotation(ATTESTATION).is_some();
        let keys = [annotations::REF_NAME, annotations::CONTAINERD_NAME];
        let names = keys.map(|key| descriptor.annotations.remove(key));
        let names: Vec<String> = names.into_iter().flatten().collect();
        Listed {
            companion: beside || attests || names.iter().any(|name| is_of_cosign(name)),
            names,
            for_this_machine: is_for_this_machine(&descriptor),
            media_type: std::mem::take(&mut descriptor.media_type),
            blob: descriptor.into(),
        }
    }

    /// True when the index calls it so.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        self.names.iter().any(|name| name == wanted)
    }

    /// Bytes of text that are held.
    pub(super) fn bytes(&self) -> u64 {
        let names: usize = self.names.iter().map(String::len).sum();
        let data = self.blob.data.as_ref().map_or(0, Vec::len);
        (self.media_type.len() + names + data) as u64
    }
}

fn is_for_this_machine(descriptor: &Descriptor) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    descriptor
        .platform
        .as_ref()
        .is_some_and(|p| p.os == "linux" && p.architecture == architecture)
}

/// True for the tags that cosign pushes to, of what it keeps beside what it signs.
fn is_of_cosign(name: &str) -> bool {
    let tag = name.rsplit(':').next().unwrap_or_default();
    let digits = tag
        .strip_prefix("sha256-")
        .and_then(|rest| rest.split_once('.'))
        .filter(|(_, suffix)| ["sig", "att", "sbom"].contains(suffix))
        .map(|(digits, _)| digits);
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
