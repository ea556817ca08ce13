//! `modeloci ls`

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use modeloci::byte_size::format_size;
use modeloci::model::{Attr, NodeKind};
use modeloci::oci::time;
use modeloci::printable::{printable, printable_path};
use modeloci::{Error, Model};
use serde_json::{Value, json};

use super::{document, output};
use crate::cli::{LsArgs, Which};

/// What is listed.
struct Entry {
    name: String,
    path: String,
    attr: Attr,
}

pub(crate) fn run(args: &LsArgs) -> anyhow::Result<ExitCode> {
    let model = open(&args.archive, &args.which)?;
    let attr = find(&model, &args.archive, &args.path)?;
    let path = resolved(&args.path);
    let entries = match model.readdir(attr.inode, 0) {
        Some(entries) => entries
            .filter(|entry| ![".", ".."].contains(&entry.name))
            .filter_map(|entry| {
                let below = if path.is_empty() { "" } else { "/" };
                Some(Entry {
                    name: entry.name.to_string(),
                    path: format!("{path}{below}{}", entry.name),
                    attr: model.attr(entry.inode)?,
                })
            })
            .collect(),
        None => vec![Entry {
            name: path.rsplit('/').next().unwrap_or_default().to_string(),
            path: path.clone(),
            attr,
        }],
    };
    if args.json {
        let entries: Vec<Value> = entries.iter().map(|entry| fields(&model, entry)).collect();
        let mut document = document::model(&args.archive, &model);
        document::extend(&mut document, json!({ "path": path, "entries": entries }));
        output::print_json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    for note in model.notes() {
        // What is left out of the tree must not be missed unnoticed.
        log::warn!("{note}");
    }
    // As ls(1): what is in a directory by its name, a file as it was named.
    let is_directory = attr.kind == NodeKind::Directory;
    let shown = |entry: &Entry| {
        printable(if is_directory {
            &entry.name
        } else {
            &entry.path
        })
    };
    let mut text = String::new();
    for entry in &entries {
        if args.long {
            text.push_str(&long(&entry.attr));
        }
        let _ = writeln!(text, "{}", shown(entry));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A path that leads where `path` does, without `.`, `..` and superfluous slashes. A model has no links.
pub(crate) fn resolved(path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components.join("/")
}

/// Opens an archive to read files of it.
pub(crate) fn open(archive: &Path, which: &Which) -> anyhow::Result<Model> {
    Model::open(archive, &which.options()).map_err(|error| output::about(archive, error))
}

/// What is at a path of the model.
pub(crate) fn find(model: &Model, archive: &Path, path: &str) -> anyhow::Result<Attr> {
    model.find(path).ok_or_else(|| {
        output::hint(
            Error::not_found(printable(path), "is not in the model"),
            format!("`modeloci ls {}` lists what is", printable_path(archive)),
        )
    })
}

/// What stands before the name: mode, size, time. A directory has no size.
fn long(attr: &Attr) -> String {
    let kind = match attr.kind {
        NodeKind::Directory => 'd',
        NodeKind::File => '-',
    };
    let execute = if attr.mode & 0o111 != 0 { 'x' } else { '-' };
    let mode = format!("r-{execute}").repeat(3);
    let size = match attr.kind {
        NodeKind::Directory => "-".to_string(),
        NodeKind::File => format_size(attr.size),
    };
    let time = time_of(attr).unwrap_or_else(|| "-".into());
    format!("{kind}{mode}  {size:>8}  {time:<20}  ")
}

fn time_of(attr: &Attr) -> Option<String> {
    let seconds = attr.mtime.as_secs();
    (seconds > 0).then(|| time::format(seconds))
}

fn fields(model: &Model, entry: &Entry) -> Value {
    let file = model.file(entry.attr.inode);
    json!({
        "name": entry.name,
        "path": entry.path,
        "type": match entry.attr.kind {
            NodeKind::Directory => "directory",
            NodeKind::File => "file",
        },
        "size": file.map(|file| file.shown_size),
        "executable": file.is_some_and(|file| document::executable(model, file)),
        "time": time_of(&entry.attr),
        "digest": file.and_then(|file| file.digest),
    })
}
