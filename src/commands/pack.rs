//! `modeloci pack`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use modeloci::byte_size::format_size;
use modeloci::files::named::NamedFile;
use modeloci::model::OpenOptions;
use modeloci::oci::OciConfig;
use modeloci::oci::config::parse_metadata;
use modeloci::pack::{Found, LeftOut, LeftOutBy, Output, PackOptions, Packed};
use modeloci::printable::{printable, printable_path};
use modeloci::{Error, Model, limits};
use serde_json::{Map, Value, json};

use super::progress::Progress;
use super::{document, interrupt, output};
use crate::cli::{EncodeArgs, PackArgs, Profile, Verbosity};

/// What the original tool says of a model of which nothing is said.
const FRAMEWORK: &str = "pytorch";
const ARCHITECTURE: &str = "transformer";

pub(crate) fn run(args: &PackArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let Profile::Default = args.profile;
    let config = OciConfig {
        model_name: args.name.clone(),
        version: args.version.clone(),
        framework: args.framework.as_deref().unwrap_or(FRAMEWORK).into(),
        architecture: args.architecture.as_deref().unwrap_or(ARCHITECTURE).into(),
        metadata: metadata(&args.metadata)?,
    };
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.json {
        return Err(Error::usage("--json needs stdout, which --output - gives the archive").into());
    }
    let output = match &args.output {
        _ if to_stdout => Output::Stdout,
        Some(path) => Output::File(path.clone()),
        None => Output::File(default_output(args)?),
    };
    let mut options = wishes(args)?;
    // What goes to a stream leaves nothing to clean up, and may wait for its reader for long.
    options.cancel = (!to_stdout).then(interrupt::catch);

    // Whether it can be written is found out before the work.
    let digestfile = args
        .digestfile
        .as_deref()
        .map(NamedFile::create)
        .transpose()?;
    let bar = Progress::new("packing", verbosity);
    let result = modeloci::pack::pack(
        args.model_dir(),
        &config,
        &output,
        &options,
        &|done, total| {
            bar.update(done, total);
        },
    );
    drop(bar);
    let packed = result?;
    if let Some(file) = digestfile {
        // Without a line end, as other tools write it.
        file.write(packed.manifest_digest.to_string().as_bytes())?;
    }

    for warning in &packed.warnings {
        output::report_line(&format!("warning: {warning}"));
    }
    let archive = match &output {
        Output::File(path) => path.as_path(),
        Output::Stdout => {
            for line in report("-", &config, &packed).lines() {
                output::report_line(line);
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    if args.json {
        output::print_json(&whole_document(archive, &packed)?)?;
    } else {
        output::print(&report(&output::absolute(archive), &config, &packed))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All that packing has to say.
fn whole_document(archive: &Path, packed: &Packed) -> anyhow::Result<Value> {
    let mut document = document(archive, packed)?;
    let left_out: Vec<Value> = packed.left_out.iter().map(left_out_document).collect();
    let found: Vec<Value> = packed.found.iter().map(found_document).collect();
    document::extend(
        &mut document,
        json!({ "left_out": left_out, "found": found }),
    );
    Ok(document)
}

/// What is asked of packing.
fn wishes(args: &PackArgs) -> anyhow::Result<PackOptions> {
    Ok(PackOptions {
        force: args.force,
        exclude: args.exclude.clone(),
        include: args.include.clone(),
        default_excludes: !args.no_default_excludes,
        dereference: args.dereference,
        allow_incomplete: args.allow_incomplete,
        allow_secrets: args.allow_secrets,
        annotations: annotations(&args.annotations)?,
        find_framework: args.framework.is_none(),
        find_architecture: args.architecture.is_none(),
        config_schema: args.config_schema.as_deref().map(schema).transpose()?,
        ..options(&args.encode)?
    })
}

/// The lines of the original tool, then what it did not know.
fn report(archive: &str, config: &OciConfig, packed: &Packed) -> String {
    let config = packed.config.as_ref().unwrap_or(config);
    let mut text = format!("Packaged model: {archive}\n");
    for (label, value) in [
        ("Name", &*config.model_name),
        ("Version", &*config.version),
        ("Framework", &*config.framework),
        ("Archive", archive),
    ] {
        let _ = writeln!(text, "  {label:<12}: {}", printable(value));
    }
    text + &written(packed) + &found(&packed.found) + &left_out(&packed.left_out)
}

/// One line, if the files have told something: what, and which.
fn found(all: &[Found]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let parts = all.iter().map(|found| {
        let Found {
            what, value, path, ..
        } = found;
        let what = what.rsplit('.').next().unwrap_or(what);
        format!("{what} {value} ({path})")
    });
    output::line("Found", &parts.collect::<Vec<_>>().join(", "))
}

fn found_document(found: &Found) -> Value {
    json!({
        "what": found.what,
        "value": found.value,
        "path": found.path,
    })
}

/// How many patterns of one origin the report lists.
const PATTERNS: usize = 10;

/// One line, if anything was left out: how much, by whose word, and by which patterns.
fn left_out(all: &[LeftOut]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let total: u64 = all.iter().map(|left_out| left_out.entries).sum();
    let parts = all.chunk_by(|a, b| a.by == b.by).map(|group| {
        let patterns = group.iter().filter(|l| !l.pattern.is_empty());
        let mut texts: Vec<String> = patterns
            .map(|l| format!("{} {}", l.entries, l.pattern))
            .collect();
        if texts.is_empty() {
            texts.push(group.iter().map(|l| l.entries).sum::<u64>().to_string());
        }
        let more = texts.len().saturating_sub(PATTERNS);
        texts.truncate(PATTERNS);
        if more > 0 {
            texts.push(format!("{more} more patterns"));
        }
        let by = match group.first().map(|l| l.by) {
            Some(LeftOutBy::Default) => "by default",
            other => &format!("by {}", other.map_or("", origin)),
        };
        format!("{} {by}", texts.join(", "))
    });
    let parts: Vec<String> = parts.collect();
    output::line("Left out", &format!("{total} ({})", parts.join("; ")))
}

/// Who left something out.
fn origin(by: LeftOutBy) -> &'static str {
    match by {
        LeftOutBy::Default => "default",
        LeftOutBy::IgnoreFile => ".modelociignore",
        LeftOutBy::Exclude => "--exclude",
        LeftOutBy::Include => "--include",
        _ => "",
    }
}

fn left_out_document(left_out: &LeftOut) -> Value {
    json!({
        "by": origin(left_out.by),
        "pattern": left_out.pattern,
        "entries": left_out.entries,
    })
}

/// The library's options for what the user asked, and what there is.
///
/// # Errors
/// When there is too little memory.
pub(crate) fn options(args: &EncodeArgs) -> anyhow::Result<PackOptions> {
    let mut options = PackOptions {
        compression: args.compression,
        chunk_size: args.chunk_size,
        chunk_digest: args.chunk_digest.into(),
        jobs: args.jobs.unwrap_or(0),
        ..PackOptions::default()
    };
    output::fitted(options.fit_memory()?);
    Ok(options)
}

/// The object that was given, or the one in `@FILE`.
fn metadata(text: &str) -> anyhow::Result<Map<String, Value>> {
    let from_file = match text.strip_prefix('@') {
        Some(path) => Some((path, read(Path::new(path))?)),
        None => None,
    };
    let text = from_file.as_ref().map_or(text, |(_, text)| text);
    parse_metadata(text).map_err(|error| {
        // The library's word for it, and the option's name.
        let error = Error::usage(format!("--{error}"));
        match &from_file {
            Some((path, _)) => anyhow::Error::new(error).context(printable(path)),
            None => output::hint(error, "write --metadata '{\"license\":\"mit\"}'"),
        }
    })
}

/// A JSON Schema.
fn schema(path: &Path) -> anyhow::Result<Value> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|error| {
        let path = printable_path(path);
        Error::usage(format!("--config-schema {path} is invalid JSON: {error}")).into()
    })
}

/// A document that the user names.
#[expect(
    clippy::disallowed_methods,
    reason = "a file that the user names, resolved and read this once"
)]
fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        // One byte more than fits into a config.
        let most = limits::MAX_CONFIG_BYTES + 1;
        file.take(most).read_to_string(&mut text)
    });
    match read {
        Ok(bytes) if bytes as u64 > limits::MAX_CONFIG_BYTES => {
            let (path, limit) = (printable_path(path), limits::MAX_CONFIG_BYTES);
            Err(Error::usage(format!("{path} has more than {limit} bytes")).into())
        }
        Ok(_) => Ok(text),
        Err(error) => Err(Error::io("read", path)(error).into()),
    }
}

/// A key has one value.
fn annotations(all: &[(String, String)]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut annotations = BTreeMap::new();
    for (key, value) in all {
        if annotations.insert(key.clone(), value.clone()).is_some() {
            let key = printable(key);
            return Err(Error::usage(format!("annotation \"{key}\" is given twice")).into());
        }
    }
    Ok(annotations)
}

/// `NAME-VERSION.tar` beside the model directory; of a name with slashes its last part.
#[expect(
    clippy::disallowed_methods,
    reason = "only chooses a name for the output, which is resolved once, where that is opened"
)]
fn default_output(args: &PackArgs) -> anyhow::Result<PathBuf> {
    // The name is checked by the library before the path is used.
    let last = args.name.rsplit('/').next().unwrap_or_default();
    let name = format!("{last}-{}.tar", args.version);
    let dir = args.model_dir();
    let ends_in_a_name = dir.file_name().is_some();
    if let (true, Some(parent)) = (ends_in_a_name, dir.parent()) {
        return Ok(parent.join(name));
    }
    let real = dir
        .canonicalize()
        .map_err(Error::io("find", dir))
        .context("cannot choose an output")?;
    let parent = real.parent().ok_or_else(|| {
        Error::usage("there is nothing beside the root directory; name an --output")
    })?;
    Ok(parent.join(name))
}

/// The lines that say what an archive holds now.
pub(crate) fn written(packed: &Packed) -> String {
    let (files, archive) = (packed.file_bytes, packed.archive_bytes);
    let size = format_size(archive) + &output::percent(archive, files);
    [
        output::line("Digest", &packed.manifest_digest.to_string()),
        output::line(
            "Files",
            &format!("{} ({})", packed.files, format_size(files)),
        ),
        output::line("Size", &size),
    ]
    .concat()
}

/// What was written, as JSON: what `inspect` prints of it, and more.
///
/// # Errors
/// Those of opening it, when something else has taken its place meanwhile, too.
pub(crate) fn document(archive: &Path, packed: &Packed) -> modeloci::Result<Value> {
    let options = OpenOptions {
        pin: Some(packed.manifest_digest),
        ..OpenOptions::default()
    };
    let model = Model::open(archive, &options)?;
    let mut document = document::archive(archive, &model, None)?;
    let warnings: Vec<&String> = packed.warnings.iter().chain(model.notes()).collect();
    let written = json!({
        "archive_bytes": packed.archive_bytes,
        "warnings": warnings,
    });
    document::extend(&mut document, written);
    Ok(document)
}
