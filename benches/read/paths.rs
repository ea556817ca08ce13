//! Reading files by path: of a mount, or of the original directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Args, Result, sample};

/// The files of `paths`, directories descended into, in the order of their names.
fn files(paths: &[&str]) -> Result<Vec<PathBuf>> {
    fn descend(path: PathBuf, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
        if !fs::metadata(&path)?.is_dir() {
            files.push(path);
            return Ok(());
        }
        let mut names = fs::read_dir(&path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        names.into_iter().try_for_each(|name| descend(name, files))
    }
    let mut files = Vec::new();
    for path in paths {
        descend(PathBuf::from(path), &mut files)?;
    }
    if files.is_empty() {
        return Err("nothing to read".into());
    }
    Ok(files)
}

/// Opens, reads to the end and closes each file.
pub(crate) fn sequential(paths: &[&str], args: &Args) -> Result<Value> {
    let files = files(paths)?;
    let mut buf = vec![0; args.size("block", 1 << 20)?];
    let mut bytes = 0;
    let mut each = Vec::with_capacity(files.len());
    let start = Instant::now();
    for path in files {
        let begun = Instant::now();
        let file = File::open(path)?;
        let mut offset = 0;
        loop {
            match file.read_at(&mut buf, offset)? {
                0 => break,
                n => offset += n as u64,
            }
        }
        bytes += offset;
        each.push(begun.elapsed());
    }
    Ok(sample::report("seq", bytes, start.elapsed(), each))
}

/// Reads at random places, by one or many threads on one descriptor for each file.
pub(crate) fn random(paths: &[&str], args: &Args) -> Result<Value> {
    let block = args.size("block", 4096)?;
    let threads = args.size("threads", 1)?.max(1);
    let files = files(paths)?
        .iter()
        .map(File::open)
        .collect::<std::io::Result<Vec<_>>>()?;
    let sizes = files
        .iter()
        .map(|file| Ok(file.metadata()?.len()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let count = args.size("count", 200)?;
    let places = sample::places(&sizes, block as u64, count, args.number("seed", 1)?);
    // More than one pass is for what the kernel has cached already.
    let places = places.repeat(args.size("passes", 1)?);
    let start = Instant::now();
    let each = std::thread::scope(|scope| {
        let shares: Vec<_> = places
            .chunks(places.len().div_ceil(threads).max(1))
            .map(|share| {
                let files = &files;
                scope.spawn(move || -> std::io::Result<Vec<Duration>> {
                    let mut buf = vec![0; block];
                    let mut each = Vec::with_capacity(share.len());
                    for (file, offset) in share {
                        let begun = Instant::now();
                        files[*file].read_exact_at(&mut buf, *offset)?;
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
    Ok(sample::report("random", bytes, start.elapsed(), each))
}

/// Opens each file and reads its last 4 KiB: what a reader waits for before the first byte.
pub(crate) fn first(paths: &[&str]) -> Result<Value> {
    let files = files(paths)?;
    let mut each = Vec::with_capacity(files.len());
    let mut bytes = 0;
    let start = Instant::now();
    for path in files {
        let begun = Instant::now();
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut buf = [0; 4096];
        let len = size.min(buf.len() as u64);
        file.read_exact_at(&mut buf[..len as usize], size - len)?;
        bytes += len;
        each.push(begun.elapsed());
    }
    Ok(sample::report("first", bytes, start.elapsed(), each))
}

/// Maps each file and touches one byte of every page, in order.
pub(crate) fn mapped(paths: &[&str]) -> Result<Value> {
    let files = files(paths)?;
    let mut bytes = 0;
    let mut each = Vec::with_capacity(files.len());
    let start = Instant::now();
    for path in files {
        let begun = Instant::now();
        bytes += touch::every_page(&path)?;
        each.push(begun.elapsed());
    }
    Ok(sample::report("mmap", bytes, start.elapsed(), each))
}

mod touch {
    //! The standard library has no memory maps.
    #![allow(unsafe_code)]

    use std::os::fd::AsRawFd as _;

    use super::{File, Path, Result};

    /// Reads one byte of every 4 KiB through a private map; returns the size of the file.
    pub(super) fn every_page(path: &Path) -> Result<u64> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let len = usize::try_from(size)?;
        if len == 0 {
            return Ok(0);
        }
        // SAFETY: a new read-only map at an address that the kernel chooses.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let base = map.cast::<u8>();
        for at in (0..len).step_by(4096) {
            // SAFETY: `at` is below the length of the map; volatile, as nobody uses the value.
            unsafe { base.add(at).read_volatile() };
        }
        // SAFETY: the map of above, which nothing refers to any more.
        unsafe { libc::munmap(map, len) };
        Ok(size)
    }
}
