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
