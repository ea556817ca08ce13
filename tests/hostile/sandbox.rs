//! Runs the binary in a directory of its own, within limits of time and memory, and looks at what
//! it leaves behind.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) use crate::machine::{is_root, needs_root};
pub(crate) use crate::run::Run;
use crate::workspace::Workspace;
pub(crate) use crate::workspace::{available, names};

/// What no command on a small input may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Address space of a command, in KiB: what it may allocate at most.
const ADDRESS_SPACE: u64 = 1 << 20;
/// The user whom root becomes to test what an ordinary user meets.
const NOBODY: u32 = 65534;

/// A temporary directory in which commands run.
pub(crate) struct Sandbox(Workspace);

impl Deref for Sandbox {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.0
    }
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox(Workspace::new())
    }

    pub(crate) fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes files below a directory.
    pub(crate) fn tree(&self, dir: &str, files: &[(&str, Vec<u8>)]) {
        self.mkdir(dir);
        for (name, bytes) in files {
            self.write(&format!("{dir}/{name}"), bytes);
        }
    }

    /// The binary, in this directory, with nothing of the caller's environment that matters.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modeloci"));
        command.args(args);
        self.settle(&mut command);
        command
    }

    pub(crate) fn settle(&self, command: &mut Command) {
        self.0.settle(command);
        // An arena per thread reserves address space that nobody uses.
        command
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// The binary under limits of sh(1)'s `ulimit`, such as `-v 1048576`.
    pub(crate) fn limited(&self, limits: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            // A file that may not grow is an error, not a signal.
            .arg(format!(
                "trap '' XFSZ; ulimit {limits} && exec \"$0\" \"$@\""
            ))
            .arg(env!("CARGO_BIN_EXE_modeloci"))
            .args(args);
        self.settle(&mut command);
        command
    }

    /// The binary as an ordinary user.
    pub(crate) fn as_user(&self, args: &[&str]) -> Command {
        if !is_root() {
            return self.command(args);
        }
        // The build directory may be closed to others.
        let binary = self.path(".bin/modeloci");
        if !binary.exists() {
            self.mkdir(".bin");
            // By another process: a child that another test starts just now would inherit the
            // descriptor that writes, and what is being written cannot be run.
            let mut copy = Command::new("cp");
            copy.arg(env!("CARGO_BIN_EXE_modeloci")).arg(&binary);
            assert!(copy.status().unwrap().success());
        }
        let mut command = Command::new(binary);
        command.args(args).uid(NOBODY).gid(NOBODY);
        self.settle(&mut command);
        command
    }

    /// The binary as an ordinary user who may start no further thread. (Root always may.)
    pub(crate) fn without_threads(&self, args: &[&str]) -> Command {
        let run = self.as_user(args);
        let mut command = Command::new("prlimit");
        command
            .arg("--nproc=1")
            .arg(run.get_program())
            .args(run.get_args());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.settle(&mut command);
        command
    }

    /// Gives a file or directory to the ordinary user.
    pub(crate) fn give_to_user(&self, name: &str) {
        if is_root() {
            std::os::unix::fs::chown(self.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args))
    }

    /// Runs with bounded memory.
    pub(crate) fn run_bounded(&self, args: &[&str]) -> Run {
        let limits = format!("-v {ADDRESS_SPACE}");
        finish(self.limited(&limits, args))
    }

    /// Every reading command refuses the archive: with that code, one line that has all the words,
    /// within the limits, and leaving nothing behind.
    #[track_caller]
    pub(crate) fn refuses(&self, archive: impl AsRef<[u8]>, code: i32, words: &[&str]) {
        self.write("bad.tar", archive);
        self.refuses_path("bad.tar", code, words);
    }

    #[track_caller]
    pub(crate) fn refuses_path(&self, archive: &str, code: i32, words: &[&str]) {
        self.mkdir("mnt");
        let before = self.names();
        for args in [
            &["inspect", "--no-verify", archive][..],
            &["inspect", archive, "-j", "2"],
            &["unpack", archive, "out", "-j", "2"],
            &["mount", archive, "mnt", "--no-index"],
        ] {
            self.run_bounded(args).fails(code, words);
        }
        assert!(!is_mounted(&self.path("mnt")));
        assert_eq!(self.names(), before, "something was left behind");
    }

    /// Every reading command that mounts nothing accepts the archive, and what is unpacked is
    /// exactly `files`.
    #[track_caller]
    pub(crate) fn accepts(&self, archive: impl AsRef<[u8]>, files: &[(&str, Vec<u8>)]) {
        self.write("good.tar", archive);
        self.accepts_path("good.tar", files);
    }

    #[track_caller]
    pub(crate) fn accepts_path(&self, archive: &str, files: &[(&str, Vec<u8>)]) {
        self.run_bounded(&["inspect", archive, "-j", "2"]).ok();
        self.run_bounded(&["unpack", archive, "out", "-j", "2"])
            .ok();
        assert_tree(&self.path("out"), files);
        fs::remove_dir_all(self.path("out")).unwrap();
    }
}

/// Runs a command, which must end in time.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Run {
    Run::within(PATIENCE, &mut command)
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let path = path.to_str().unwrap();
    mounts.lines().any(|m| m.split(' ').nth(4) == Some(path))
}

/// The directory holds exactly these files: regular, with these bytes and ordinary modes.
#[track_caller]
pub(crate) fn assert_tree(dir: &Path, files: &[(&str, Vec<u8>)]) {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                dirs.push(path);
                continue;
            }
            assert!(meta.is_file(), "{} is no regular file", path.display());
            assert_eq!(meta.mode() & 0o7022, 0, "{}", path.display());
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
            found.push((name.to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let mut expected: Vec<_> = files.iter().map(|(p, b)| (p.to_string(), b)).collect();
    expected.sort();
    assert_eq!(
        paths,
        expected.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>()
    );
    for ((path, found), (_, bytes)) in found.iter().zip(&expected) {
        assert!(found == *bytes, "{path} has other bytes");
    }
}
