//! `modeloci cat`

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::Context as _;
use modeloci::model::FileInfo;
use modeloci::{Error, Model};

use super::ls;
use crate::cli::CatArgs;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

pub(crate) fn run(args: &CatArgs) -> anyhow::Result<ExitCode> {
    let model = ls::open(&args.archive, &args.which)?;
    // A name that is not there is told before anything is printed.
    let files = args
        .paths
        .iter()
        .map(|path| file(&model, &args.archive, path));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let cannot_write = "cannot write standard output";
    // Nothing is kept back of what was verified: not buffered.
    let stdout = io::stdout();
    let stdout = stdout.as_fd().try_clone_to_owned().context(cannot_write)?;
    let mut stdout = File::from(stdout);
    for file in files {
        // An empty file is something that can be damaged, too.
        let size = model.facts(file.inode)?.size;
        let mut offset = 0;
        loop {
            let bytes = model.read_at(file.inode, offset, READ_BYTES)?;
            stdout.write_all(&bytes).context(cannot_write)?;
            offset += bytes.len() as u64;
            if offset >= size {
                break;
            }
            if bytes.is_empty() {
                let problem = format!("ends at byte {offset}, its size is {size}");
                return Err(Error::corrupt(&file.path, problem).into());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn file<'a>(
    model: &'a Model,
    archive: &std::path::Path,
    path: &str,
) -> anyhow::Result<&'a FileInfo> {
    let attr = ls::find(model, archive, path)?;
    let file = model.file(attr.inode);
    file.ok_or_else(|| Error::refused(path, "is a directory").into())
}
