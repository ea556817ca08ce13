//! What a model is: what the user says of it, and where nothing is said, what its files tell.
//!
//! Nothing is invented: a framework or architecture that no file tells stays what the config says.
//! What a file tells is a word that somebody else wrote; what is not printable is not believed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::options::PackOptions;
use super::packed::Found;
use super::tree::{InputFile, Tree};
use super::weights::{self, Weights};
use super::{card, plan};
use crate::error::{Error, Result};
use crate::files::calls;
use crate::oci::{OciConfig, annotations};
use crate::printable::printable;

/// Largest document that is read as a whole.
const MAX_DOCUMENT_BYTES: u64 = 1 << 20;
/// Longest word that a file may tell.
const MAX_WORD_BYTES: usize = 128;
/// How many files a warning lists.
const LISTED: usize = 10;
/// Longest key of an annotation.
const MAX_KEY_BYTES: usize = 255;

/// What is written about a model.
pub(super) struct Description {
    pub config: OciConfig,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    pub found: Vec<Found>,
}

/// Looks at the files, and adds to the tree's warnings.
///
/// # Errors
/// Those of reading; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for annotations that cannot be
/// set, and for a config that breaks its schema.
pub(super) fn describe(
    tree: &mut Tree,
    config: &OciConfig,
    options: &PackOptions,
) -> Result<Description> {
    check_annotations(&options.annotations)?;
    let mut seen = Vec::new();
    for file in &tree.files {
        if let Some(weights) = weights::look(tree, file)? {
            seen.push((file.path.as_str().to_string(), weights));
        }
    }
    let about = Config::read(tree)?;
    let mut found = Vec::new();
    let mut config = config.clone();
    if options.find_framework
        && let Some((value, path)) = framework(tree, &seen, about.as_ref())?
    {
        config.framework.clone_from(&value);
        found.push(Found::new("framework", value, path));
    }
    if options.find_architecture
        && let Some((value, path)) = architecture(&seen, about)
    {
        config.architecture.clone_from(&value);
        found.push(Found::new("architecture", value, path));
    }
    let config = plan::check_config(&config)?;
    if let Some(schema) = &options.config_schema {
        super::schema::check(&config, schema)?;
    }

    let mut all = BTreeMap::new();
    if let Some(readme) = file(tree, "README.md")
        && let Some(text) = read(tree, readme)?.and_then(|bytes| String::from_utf8(bytes).ok())
    {
        let card = card::parse(&text);
        let tags: Vec<String> = card.tags.into_iter().filter_map(word).collect();
        let fields = [
            (annotations::LICENSES, card.license.and_then(word)),
            (
                annotations::TAGS,
                (!tags.is_empty()).then(|| tags.join(",")),
            ),
        ];
        for (key, value) in fields {
            if let Some(value) = value
                && !options.annotations.contains_key(key)
            {
                found.push(Found::new(key, value.clone(), "README.md".into()));
                all.insert(key.to_string(), value);
            }
        }
    }
    all.extend(options.annotations.clone());
    warn(tree, &seen);
    Ok(Description {
        config,
        annotations: all,
        found,
    })
}

/// Refuses annotations that would say something else than what is written, or that no reader takes.
fn check_annotations(all: &BTreeMap<String, String>) -> Result<()> {
    /// Where we write them ourselves.
    const WRITTEN: [&str; 5] = [
        annotations::CREATED,
        annotations::TITLE,
        annotations::REF_NAME,
        annotations::MODELPACK_FILEPATH,
        annotations::MODELPACK_OLD_FILEPATH,
    ];
    for (key, value) in all {
        let refuse = |why: &str| {
            let key: String = key.chars().take(MAX_WORD_BYTES).collect();
            Err(Error::usage(format!(
                "annotation \"{}\" {why}",
                printable(&key)
            )))
        };
        let ours = key.starts_with("io.modeloci.") && key != annotations::TAGS;
        if key == annotations::CREATED {
            return refuse("is written by pack itself; SOURCE_DATE_EPOCH sets it");
        } else if ours || WRITTEN.contains(&&**key) {
            return refuse("is written by pack itself");
        } else if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return refuse(&format!("is not a key of 1 to {MAX_KEY_BYTES} bytes"));
        } else if printable(key) != *key || key.contains(char::is_whitespace) {
            return refuse("has white space, or a character that cannot be seen");
        } else if printable(value) != *value {
            return refuse(
                "has a value with a control character, or one that hides or reorders text",
            );
        }
    }
    Ok(())
}

/// A word that a file tells, if it can be shown.
fn word(text: String) -> Option<String> {
    let text = text.trim();
    let usable = !text.is_empty() && text.len() <= MAX_WORD_BYTES && printable(text) == text;
    usable.then(|| text.to_string())
}

/// What `config.json` tells, or `model_index.json` of a pipeline.
struct Config {
    path: &'static str,
    architecture: Option<String>,
    /// Written by `transformers`, whose models are PyTorch's where nothing else is said.
    transformers: bool,
}

impl Config {
    fn read(tree: &Tree) -> Result<Option<Config>> {
        for path in ["config.json", "model_index.json"] {
            let Some(file) = file(tree, path) else {
                continue;
            };
            let Some(bytes) = read(tree, file)? else {
                continue;
            };
            let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
                continue;
            };
            let text = |value: Option<&Value>| word(value?.as_str()?.to_string());
            let architectures = document.get("architectures").and_then(Value::as_array);
            let architecture = text(architectures.and_then(|all| all.first()))
                .or_else(|| text(document.get("model_type")))
                .or_else(|| text(document.get("_class_name")));
            return Ok(Some(Config {
                path,
                architecture,
                transformers: document.get("transformers_version").is_some(),
            }));
        }
        Ok(None)
    }
}

/// What loads the model, and the file that tells it: what MLflow says, or else the files of weights,
/// those before others that are less deep in the tree.
fn framework(
    tree: &Tree,
    seen: &[(String, Weights)],
    about: Option<&Config>,
) -> Result<Option<(String, String)>> {
    if let Some(mlmodel) = file(tree, "MLmodel")
        && let Some(bytes) = read(tree, mlmodel)?
        && let Some(flavor) = flavor(&String::from_utf8_lossy(&bytes)).and_then(word)
    {
        return Ok(Some((flavor, "MLmodel".into())));
    }
    let depth = |path: &str| path.matches('/').count();
    let told = seen
        .iter()
        .filter(|(_, weights)| weights.framework.is_some());
    let first = told.min_by_key(|(path, weights)| (depth(path), weights.rank, path.clone()));
    Ok(first.and_then(|(path, weights)| {
        let framework = weights.framework.clone()?;
        match (&*framework, about) {
            ("safetensors", Some(about)) if about.transformers => {
                Some(("pytorch".into(), about.path.into()))
            }
            _ => Some((framework, path.clone())),
        }
    }))
}

/// The first flavour of an MLflow model that is one of a framework. It is YAML, written by a program:
/// `flavors:`, and below it names by two spaces.
fn flavor(text: &str) -> Option<String> {
    let below = text
        .lines()
        .skip_while(|line| line.trim_end() != "flavors:")
        .skip(1);
    let names = below
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.trim_end().strip_suffix(':'))
        .filter(|name| !name.starts_with(' '));
    let mut names = names.filter(|name| *name != "python_function");
    names.next().map(str::to_string)
}

/// The architecture, and the file that tells it.
fn architecture(seen: &[(String, Weights)], about: Option<Config>) -> Option<(String, String)> {
    if let Some(about) = about
        && let Some(architecture) = about.architecture
    {
        return Some((architecture, about.path.into()));
    }
    seen.iter().find_map(|(path, weights)| {
        let architecture = weights.architecture.clone().and_then(word)?;
        Some((architecture, path.clone()))
    })
}

/// Warnings about weights that are cut off, or that are dangerous to load.
fn warn(tree: &mut Tree, seen: &[(String, Weights)]) {
    for (path, weights) in seen {
        if let Some(problem) = &weights.problem {
            tree.warnings
                .push(format!("\"{path}\" {problem}: it may be incomplete"));
        }
    }
    let pickles: Vec<String> = seen
        .iter()
        .filter(|(_, weights)| weights.pickle)
        .map(|(path, _)| format!("\"{path}\""))
        .collect();
    if let Some((first, more)) = pickles.split_first() {
        let mut text = first.clone();
        for path in more.iter().take(LISTED - 1) {
            text += &format!(", {path}");
        }
        if pickles.len() > LISTED {
            text += &format!(" and {} more", pickles.len() - LISTED);
        }
        let (are, them) = match more {
            [] => ("is a pickle", "it"),
            _ => ("are pickles", "them"),
        };
        tree.warnings.push(format!(
            "{text} {are}: whoever loads {them} runs the code in {them}; safetensors have none"
        ));
    }
}

fn file<'a>(tree: &'a Tree, path: &str) -> Option<&'a InputFile> {
    let files = &tree.files;
    let at = files.binary_search_by(|file| file.path.as_str().cmp(path));
    files.get(at.ok()?)
}

/// A small document; `None` of a large one.
fn read(tree: &Tree, file: &InputFile) -> Result<Option<Vec<u8>>> {
    let size = file.identity.size;
    if size > MAX_DOCUMENT_BYTES {
        return Ok(None);
    }
    let input = tree.open(file)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    calls::read_exact(&input, &mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => tree.changed(file, "shrank while it was packed"),
        _ => tree.failed(file, "read", error),
    })?;
    Ok(Some(bytes))
}
