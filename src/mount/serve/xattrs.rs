//! Extended attributes: what is known of the model, and of each of its files.

use std::borrow::Cow;

use fuser::Errno;

use crate::model::{Inode, Model};

/// Largest value of an extended attribute (`XATTR_SIZE_MAX` of Linux).
const MAX_XATTR_BYTES: usize = 64 << 10;

const PREFIX: &str = "user.modeloci.";

/// An extended attribute: what follows the prefix in its name, and its value if that is not too
/// large for one.
type Xattr = (&'static str, Option<String>);

fn xattr(name: &'static str, value: String) -> Xattr {
    (
        name,
        Some(value).filter(|value| value.len() <= MAX_XATTR_BYTES),
    )
}

fn of_root(model: &Model) -> Box<[Xattr]> {
    let mut all = vec![xattr(
        "manifest-digest",
        model.manifest_digest().to_string(),
    )];
    if let Some(config) = model.config() {
        let metadata = serde_json::to_string(&config.metadata).unwrap_or_default();
        all.extend([
            xattr("name", config.model_name.clone()),
            xattr("version", config.version.clone()),
            xattr("framework", config.framework.clone()),
            xattr("architecture", config.architecture.clone()),
            xattr("metadata", metadata),
        ]);
    }
    all.into()
}

/// The attributes of one model.
pub(super) struct Xattrs {
    /// Those of the mount's root. They may take long to write down, and never change.
    root: Box<[Xattr]>,
}

impl Xattrs {
    pub(super) fn of(model: &Model) -> Xattrs {
        Xattrs {
            root: of_root(model),
        }
    }

    /// The value of an attribute.
    pub(super) fn value(&self, model: &Model, inode: Inode, name: &str) -> Result<Vec<u8>, Errno> {
        let name = name.strip_prefix(PREFIX).ok_or(Errno::NO_XATTR)?;
        let all = self.all(model, inode)?;
        match all.iter().find(|(known, _)| *known == name) {
            Some((_, Some(value))) => Ok(value.clone().into_bytes()),
            Some((_, None)) => Err(Errno::E2BIG),
            None => Err(Errno::NO_XATTR),
        }
    }

    /// The names of all attributes, each with a zero byte after it.
    pub(super) fn names(&self, model: &Model, inode: Inode) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for (name, value) in self.all(model, inode)?.iter() {
            if value.is_some() {
                names.extend_from_slice(PREFIX.as_bytes());
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        Ok(names)
    }

    fn all(&self, model: &Model, inode: Inode) -> Result<Cow<'_, [Xattr]>, Errno> {
        if inode == Inode::ROOT {
            return Ok(Cow::Borrowed(&self.root));
        }
        let Some(file) = model.file(inode) else {
            // A directory has none; an unknown inode is an error.
            let none = Cow::Borrowed(&[][..]);
            return model.attr(inode).map(|_| none).ok_or(Errno::ESTALE);
        };
        let mut all = vec![xattr("digest", file.parts.digests())];
        if let Some(digest) = &file.digest {
            all.push(xattr("sha256", digest.to_string()));
        }
        all.push(xattr(
            "media-type",
            file.parts.joined(|stated| stated.media_type.to_string()),
        ));
        all.push(xattr("verified", model.verified(inode).to_string()));
        if model.damaged(inode) {
            all.push(xattr("damaged", true.to_string()));
        }
        Ok(Cow::Owned(all))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::OpenOptions;
    use crate::oci::OciConfig;
    use crate::pack::{Output, PackOptions, pack};

    /// Metadata may be megabytes: who asks for a name, or lists the names, waits for none of them to be
    /// written down, and neither does whoever asks for the metadata themselves.
    #[test]
    fn metadata_is_written_down_once_however_often_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (files, archive) = (dir.path().join("model"), dir.path().join("m.tar"));
        std::fs::create_dir(&files).unwrap();
        let metadata = serde_json::json!({ "notes": "x".repeat(60_000) });
        let metadata = metadata.as_object().cloned().unwrap();
        let config = OciConfig::new("name", "1", "f", "a", metadata).unwrap();
        let (output, options) = (Output::File(archive.clone()), PackOptions::default());
        pack(&files, &config, &output, &options, &|_, _| {}).unwrap();
        let model = Model::open(archive, &OpenOptions::default()).unwrap();
        let xattrs = Xattrs::of(&model);
        let places = || {
            let all = xattrs.all(&model, Inode::ROOT).unwrap();
            assert!(matches!(all, Cow::Borrowed(_)), "made for this one request");
            let place = |(_, value): &Xattr| value.as_ref().map(|value| value.as_ptr());
            all.iter().map(place).collect::<Vec<_>>()
        };
        let before = places();
        assert_eq!(before.len(), 6);
        for _ in 0..100 {
            let value = xattrs.value(&model, Inode::ROOT, "user.modeloci.metadata");
            assert_eq!(value.unwrap().len(), 60_000 + r#"{"notes":""}"#.len());
            let name = xattrs.value(&model, Inode::ROOT, "user.modeloci.name");
            assert_eq!(name.unwrap(), b"name");
            xattrs.names(&model, Inode::ROOT).unwrap();
            assert_eq!(places(), before);
        }
    }
}
