//! `--include`: which files to restore.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::entry_path::EntryPath;
use crate::error::{Error, Result};

/// A set of globs; no glob at all matches everything.
pub(super) struct Include {
    globs: Vec<String>,
    names: GlobSet,
    paths: GlobSet,
}

impl Include {
    /// Compiles the globs: `*`, `?`, `[…]`, `{a,b}`, and `**` for any number of directories.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names a glob that is invalid.
    pub(super) fn new(globs: &[String]) -> Result<Include> {
        let refuse = |e: globset::Error| Error::usage(format!("invalid glob: {e}"));
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in globs {
            // `dir/` and `./dir`, as shells complete them.
            let text = text.strip_prefix("./").unwrap_or(text);
            let text = text.strip_suffix('/').unwrap_or(text);
            let glob = GlobBuilder::new(text)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(refuse)?;
            if text.contains('/') {
                paths.add(glob);
            } else {
                names.add(glob);
            }
        }
        Ok(Include {
            globs: globs.to_vec(),
            names: names.build().map_err(refuse)?,
            paths: paths.build().map_err(refuse)?,
        })
    }

    /// True when the file is to be restored: a glob matches it, or a directory that it is in.
    pub(super) fn matches(&self, path: &EntryPath) -> bool {
        let mut paths = path.directories().chain([path.as_str()]);
        self.globs.is_empty()
            || paths.any(|path| {
                let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
                self.names.is_match(name) || self.paths.is_match(path)
            })
    }

    /// Refuses globs that matched nothing.
    pub(super) fn check(&self, matched: usize) -> Result<()> {
        if matched > 0 || self.globs.is_empty() {
            return Ok(());
        }
        let quoted: Vec<String> = self.globs.iter().map(|g| format!("\"{g}\"")).collect();
        Err(Error::not_found(
            format!("glob {}", quoted.join(", ")),
            "matches no file of the model",
        ))
    }
}
