//! What is left out of a model: by default, by a file in its directory, and by options.
//!
//! One syntax everywhere, that of gitignore(5): a pattern without a slash matches a name at any
//! depth, one with a slash a path from the model's root; a directory that matches is left out with
//! all that is below it. `--exclude` is stronger than the file, and the file, which may take back
//! with `!`, than the defaults. What remains must match an `--include`, if there is any.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::options::PackOptions;
use crate::error::{Error, Result};

/// What is left out by default: what version control, Python, file managers, editors and the
/// Hugging Face client leave in a directory, and the file of patterns itself.
pub const DEFAULT_EXCLUDES: [&str; 10] = [
    ".git",
    "__pycache__",
    ".DS_Store",
    "._*",
    "*.swp",
    "*.swo",
    "*~",
    ".#*",
    "**/.cache/huggingface",
    IGNORE_PATTERN,
];

/// The file of patterns, at the model's root.
pub(super) const IGNORE_FILE: &str = ".modelociignore";
/// Below the root it is content.
const IGNORE_PATTERN: &str = "/.modelociignore";

/// On whose word something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeftOutBy {
    /// [`DEFAULT_EXCLUDES`].
    Default,
    /// A line of `.modelociignore`.
    IgnoreFile,
    /// [`PackOptions::exclude`].
    Exclude,
    /// It matches nothing in [`PackOptions::include`].
    Include,
}

/// Files and directories that were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// On whose word.
    pub by: LeftOutBy,
    /// The pattern that they match; empty for [`LeftOutBy::Include`].
    pub pattern: String,
    /// How many they are; a directory is one, whatever it holds.
    pub entries: u64,
}

/// The patterns of one run, and what they left out so far.
#[derive(Debug)]
pub(super) struct Selection {
    exclude: Gitignore,
    file: Gitignore,
    defaults: Gitignore,
    include: Option<Gitignore>,
    left_out: BTreeMap<(LeftOutBy, String), u64>,
}

impl Selection {
    /// Compiles the patterns of the options.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names a pattern that is invalid.
    pub(super) fn new(options: &PackOptions) -> Result<Selection> {
        let defaults: &[&str] = match options.default_excludes {
            true => &DEFAULT_EXCLUDES,
            false => &[],
        };
        let include = &options.include;
        Ok(Selection {
            exclude: compile(&globs("--exclude", &options.exclude)?, "--exclude")?,
            file: Gitignore::empty(),
            defaults: compile(defaults, "the default excludes")?,
            include: match include.is_empty() {
                true => None,
                false => Some(compile(&globs("--include", include)?, "--include")?),
            },
            left_out: BTreeMap::new(),
        })
    }

    /// Takes the lines of the model's own file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names a line that is invalid.
    pub(super) fn take_file(&mut self, text: &str) -> Result<()> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<&str> = text.lines().collect();
        self.file = compile(&lines, IGNORE_FILE)?;
        Ok(())
    }

    /// True for what is to be left out, which is then counted.
    pub(super) fn excludes(&mut self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        for (patterns, by) in [
            (&self.exclude, LeftOutBy::Exclude),
            (&self.file, LeftOutBy::IgnoreFile),
            (&self.defaults, LeftOutBy::Default),
        ] {
            match patterns.matched(path, is_dir) {
                Match::None => {}
                Match::Whitelist(_) => return false,
                Match::Ignore(glob) => {
                    let key = (by, glob.original().to_string());
                    *self.left_out.entry(key).or_default() += 1;
                    return true;
                }
            }
        }
        false
    }

    /// False for a file that nothing includes, which is then counted.
    pub(super) fn includes(&mut self, path: &str) -> bool {
        let included = match &self.include {
            None => true,
            Some(globs) => globs.matched_path_or_any_parents(path, false).is_ignore(),
        };
        if !included {
            let key = (LeftOutBy::Include, String::new());
            *self.left_out.entry(key).or_default() += 1;
        }
        included
    }

    /// True when files must match to be packed.
    pub(super) fn has_includes(&self) -> bool {
        self.include.is_some()
    }

    /// What was left out.
    pub(super) fn left_out(self) -> Vec<LeftOut> {
        let all = self.left_out.into_iter();
        all.map(|((by, pattern), entries)| LeftOut {
            by,
            pattern,
            entries,
        })
        .collect()
    }
}

/// Globs of an option, as lines of gitignore: there `#` begins a comment, and `!` takes back.
fn globs(option: &str, globs: &[String]) -> Result<Vec<String>> {
    let lines = globs.iter().map(|glob| {
        if glob.trim_matches([' ', '/']).is_empty() {
            return Err(Error::usage(format!("{option} \"{glob}\" matches nothing")));
        }
        Ok(match glob.starts_with(['#', '!']) {
            true => format!("\\{glob}"),
            false => glob.clone(),
        })
    });
    lines.collect()
}

fn compile<S: AsRef<str>>(lines: &[S], whose: &str) -> Result<Gitignore> {
    // Of paths that begin at the root of the model.
    let mut patterns = GitignoreBuilder::new(".");
    let refuse = |error: ignore::Error| Error::usage(format!("{whose}: {error}"));
    for line in lines {
        patterns.add_line(None, line.as_ref()).map_err(refuse)?;
    }
    patterns.build().map_err(refuse)
}
