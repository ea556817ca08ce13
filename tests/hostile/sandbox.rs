//! Runs the binary in a directory of its own, within limits of time and memory, and looks at what
//! it leaves behind.

use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;
use crate::workspace::Workspace;

/// What no command on a small input may take.
const PATIENCE: Duration = Duration::from_secs(30);
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
        machine::set_up();
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

    /// Names in the top directory, sorted: what a command has left behind.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.root())
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
        command
            // An arena per thread reserves address space that nobody uses.
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
        finish(self.command(args), &args.join(" "))
    }

    /// Runs with bounded memory.
    pub(crate) fn run_bounded(&self, args: &[&str]) -> Run {
        let limits = format!("-v {ADDRESS_SPACE}");
        finish(self.limited(&limits, args), &args.join(" "))
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

/// What a command did.
#[derive(Debug)]
pub(crate) struct Run {
    line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "{}: {}", self.line, self.stderr);
        assert!(!self.stderr.contains("error"), "{}", self.stderr);
        self
    }

    /// Refused: the code, nothing on stdout, and one line of error that has all the words.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Run {
        let Run { line, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{line}: {stderr}");
        assert!(self.stdout.is_empty(), "{line}: {}", self.text());
        self.one_error(words)
    }

    /// One line of error that has all the words, and nothing that only a bug would print.
    #[track_caller]
    pub(crate) fn one_error(self, words: &[&str]) -> Run {
        let Run { line, stderr, .. } = &self;
        let errors: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{line}: {stderr}");
        for word in words {
            assert!(errors[0].contains(word), "{line}: no {word:?} in {stderr}");
        }
        self.sober()
    }

    /// No panic, no debug output, no control characters.
    #[track_caller]
    pub(crate) fn sober(self) -> Run {
        let Run { line, stderr, .. } = &self;
        assert!(self.code.is_some(), "{line} was killed: {stderr}");
        assert_ne!(self.code, Some(101), "{line}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line}: {stderr}");
        let controls = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
        assert!(!controls(stderr), "{line}: {stderr:?}");
        self
    }
}

/// Waits for a command, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn finish(mut command: Command, line: &str) -> Run {
    let mut child = command.spawn().unwrap();
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).unwrap();
            }
            bytes
        })
    };
    let stdout = drain(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = drain(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let code = wait(&mut child, line);
    Run {
        line: line.to_string(),
        code,
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8(stderr.join().unwrap()).unwrap(),
    }
}

/// The exit code; `None` when a signal ended it.
#[track_caller]
fn wait(child: &mut Child, line: &str) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{line} hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True for root; for others it says what is not tested. The tests are run as root, too.
pub(crate) fn needs_root(what: &str) -> bool {
    if !is_root() {
        eprintln!("skipped: only root can {what}");
    }
    is_root()
}

/// True when something that a test rests on is there; with `CI` set it must be.
#[track_caller]
pub(crate) fn available(what: &str, found: bool) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{what} is missing");
        eprintln!("skipped: {what} is missing");
    }
    found
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let path = path.to_str().unwrap();
    mounts.lines().any(|m| m.split(' ').nth(4) == Some(path))
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
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
