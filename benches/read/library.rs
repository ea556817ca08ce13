//! Reading through [`Model::read_at`], as every user of the library does.

use std::time::{Duration, Instant};

use modeloci::model::{Inode, OpenOptions};
use modeloci::{Model, limits};
use serde_json::Value;

use crate::{Args, Result, sample};

fn open(archive: &str, args: &Args) -> Result<(Model, Vec<(Inode, u64)>)> {
    let default = OpenOptions::default();
    let options = OpenOptions {
        cache_bytes: args.number("cache", default.cache_bytes)?,
        index_dir: args.path("index"),
        readahead: args.on("ahead", default.readahead),
        ..default
    };
    let model = Model::open(archive, &options)?;
    let files = model
        .files()
        .map(|file| (file.inode, file.shown_size))
        .collect();
    Ok((model, files))
}

/// Every file from its first to its last byte, one thread.
pub(crate) fn sequential(archive: &str, args: &Args) -> Result<Value> {
    let block = args.size("block", limits::DEFAULT_CHUNK_BYTES as usize)?;
    let start = Instant::now();
    let (model, files) = open(archive, args)?;
    let mut bytes = 0;
    let mut each = Vec::new();
    for (inode, size) in files {
        let mut offset = 0;
        while offset < size {
            let begun = Instant::now();
            let got = model.read_at(inode, offset, block)?.len() as u64;
            each.push(begun.elapsed());
            offset += got;
            bytes += got;
        }
    }
    Ok(sample::report("library seq", bytes, start.elapsed(), each))
}

/// First touches at random places.
pub(crate) fn random(archive: &str, args: &Args) -> Result<Value> {
    let block = args.size("block", 4096)?;
    let threads = args.size("threads", 1)?.max(1);
    let (model, files) = open(archive, args)?;
    let sizes: Vec<u64> = files.iter().map(|(_, size)| *size).collect();
    let count = args.size("count", 200)?;
    let places = sample::places(&sizes, block as u64, count, args.number("seed", 1)?);
    let start = Instant::now();
    let each = std::thread::scope(|scope| {
        let shares: Vec<_> = places
            .chunks(places.len().div_ceil(threads).max(1))
            .map(|share| {
                let (model, files) = (&model, &files);
                scope.spawn(move || -> modeloci::Result<Vec<Duration>> {
                    let mut each = Vec::with_capacity(share.len());
                    for (file, offset) in share {
                        let begun = Instant::now();
                        model.read_at(files[*file].0, *offset, block)?;
                        each.push(begun.elapsed());
                    }
                    Ok(each)
                })
            })
            .collect();
        let mut each = Vec::new();
        for share in shares {
            each.extend(share.join().map_err(|_| "a reader panicked")??);
        }
        Ok::<_, Box<dyn std::error::Error>>(each)
    })?;
    let bytes = (each.len() * block) as u64;
    Ok(sample::report(
        "library random",
        bytes,
        start.elapsed(),
        each,
    ))
}
