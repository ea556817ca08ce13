//! A directory with an archive and a mount point; mounts that end with the test.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support;
pub(crate) use crate::support::machine::{is_root, needs_root};
pub(crate) use crate::support::run::Run;
use crate::support::workspace::Workspace;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_modeloci");
/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the archive of a [`Scene`] came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packaging {
    /// By another tool: layers without a chunk table.
    Foreign,
    /// By `pack` with this compression.
    Packed(&'static str),
}

/// Every packaging that must be served alike.
pub(crate) const PACKAGINGS: [Packaging; 5] = [
    Packaging::Foreign,
    Packaging::Packed("auto"),
    Packaging::Packed("gzip:6"),
    Packaging::Packed("zstd"),
    Packaging::Packed("none"),
];

/// A temporary directory with an archive `m.tar` and an empty directory `mnt`.
pub(crate) struct Scene {
    workspace: Workspace,
    pub(crate) digest: String,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) packaging: Packaging,
}

impl Scene {
    /// A foreign archive of several files, the largest of a few megabytes.
    pub(crate) fn new() -> Scene {
        Scene::of(sample())
    }

    /// A foreign archive of these files.
    pub(crate) fn of(files: Vec<(String, Vec<u8>)>) -> Scene {
        Scene::packaged(Packaging::Foreign, files)
    }

    /// The sample in every packaging, one after the other.
    pub(crate) fn each() -> impl Iterator<Item = Scene> {
        PACKAGINGS
            .into_iter()
            .map(|packaging| Scene::packaged(packaging, sample()))
    }

    /// The same without the foreign one.
    pub(crate) fn each_packed() -> impl Iterator<Item = Scene> {
        let foreign = |scene: &Scene| scene.packaging == Packaging::Foreign;
        Scene::each().filter(move |scene| !foreign(scene))
    }

    pub(crate) fn packaged(packaging: Packaging, files: Vec<(String, Vec<u8>)>) -> Scene {
        let mut scene = Scene::empty(packaging);
        match packaging {
            Packaging::Foreign => {
                let list: Vec<_> = files
                    .iter()
                    .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
                    .collect();
                scene.digest = support::write_archive(&scene.path("m.tar"), &list);
            }
            Packaging::Packed(_) => {
                for (name, bytes) in &files {
                    let path = scene.path("model").join(name);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, bytes).unwrap();
                    if name.ends_with(".sh") {
                        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
                    }
                }
                scene.pack(&[]);
                fs::remove_dir_all(scene.path("model")).unwrap();
            }
        }
        scene.files = files;
        scene
    }

    /// No archive yet.
    pub(crate) fn empty(packaging: Packaging) -> Scene {
        let workspace = Workspace::new();
        for name in ["mnt", "tmp"] {
            fs::create_dir(workspace.path(name)).unwrap();
        }
        Scene {
            workspace,
            digest: String::new(),
            files: Vec::new(),
            packaging,
        }
    }

    /// Packs the directory `model` as `m.tar`, with more options.
    pub(crate) fn pack(&mut self, options: &[&str]) {
        let Packaging::Packed(compression) = self.packaging else {
            panic!("a foreign archive is not packed");
        };
        let mut command = self.command(&["pack", "model", "--name", "m", "--version", "1"]);
        command.args(["--output", "m.tar", "--json", "--force", "--quiet"]);
        command.args(["--compression", compression]).args(options);
        let summary: Value = Run::of(&mut command).ok().json();
        self.digest = summary["manifest_digest"].as_str().unwrap().to_string();
    }

    /// The canonical path of something in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workspace.root().canonicalize().unwrap().join(name)
    }

    /// Where seek tables of foreign layers are kept.
    pub(crate) fn seek_tables(&self) -> PathBuf {
        self.workspace.cache().join("seek-tables")
    }

    /// Waits until the log, `log` of the scene, tells of the end of a prefetch.
    pub(crate) fn until_prefetched(&self) {
        let log = self.path("log");
        let told =
            || fs::read_to_string(&log).is_ok_and(|log| log.contains("prefetch is complete"));
        until("prefetch is complete", told);
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.files.iter().find(|(n, _)| n == name).unwrap().1
    }

    /// The binary with arguments, in the directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        self.settle(command.args(args));
        command
    }

    /// The command runs in the directory, and leaves nothing elsewhere.
    pub(crate) fn settle(&self, command: &mut Command) {
        self.workspace.settle(command);
        command.env("TMPDIR", self.path("tmp")).stdin(Stdio::null());
        // A system call that the sandbox does not know ends the process, and fails the test.
        command.env("MODELOCI_TEST_STRICT", "1");
    }

    /// A shell script in the directory, which is `$1`; the binary is `$2`, and what follows `more`.
    pub(crate) fn script(&self, script: &str, more: &[&OsStr]) -> Command {
        let mut command = Command::new("sh");
        let mnt = self.path("mnt");
        command.args(["-c", script, "sh"]);
        // Without a slash at its end.
        command.arg(mnt.parent().unwrap()).arg(BINARY).args(more);
        self.settle(&mut command);
        command
    }

    /// Runs such a script.
    pub(crate) fn shell(&self, script: &str) -> Run {
        Run::of(&mut self.script(script, &[]))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Mounts `m.tar` on `mnt` in the background, with more options.
    pub(crate) fn mount(&self, options: &[&str]) -> Mounted {
        let mut args = vec!["mount", "m.tar", "mnt"];
        args.extend(options);
        self.run(&args).ok();
        Mounted(self.path("mnt"))
    }

    /// The same in the foreground.
    pub(crate) fn serve(&self, options: &[&str]) -> Server {
        let mut args = vec!["mount", "m.tar", "mnt", "--foreground"];
        args.extend(options);
        let mut command = self.command(&args);
        command.stderr(Stdio::piped());
        Server::start(command, self.path("mnt"))
    }
}

/// Several files, the largest of a few megabytes.
pub(crate) fn sample() -> Vec<(String, Vec<u8>)> {
    vec![
        ("config.json".into(), b"{\"layers\": 2}".to_vec()),
        ("empty".into(), Vec::new()),
        (
            "nested/deep/run.sh".into(),
            b"#!/bin/sh\necho served\n".to_vec(),
        ),
        (
            "nested/tokenizer.json".into(),
            b"[\"a\", \"b\"]".repeat(40_000),
        ),
        ("weights.bin".into(), support::noise(7, 5 * (1 << 20) + 123)),
    ]
}

/// A mount; unmounted at the end of the test.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn status(&self) -> Value {
        let done = Run::of(
            Command::new(BINARY)
                .arg("status")
                .arg(&self.0)
                .arg("--json"),
        );
        done.ok().json()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()[name].as_u64().unwrap()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.status()["pid"].as_i64().unwrap() as i32
    }

    /// The process that serves; [`pid`](Mounted::pid) keeps the mount.
    pub(crate) fn server(&self) -> i32 {
        self.status()["server_pid"].as_i64().unwrap() as i32
    }

    /// Unmounts. A process that another test starts just now shares our open files with it for a
    /// moment, so "busy" is not final.
    #[track_caller]
    pub(crate) fn unmount(&self) {
        until("it is unmounted", || self.umount(&[]).code == Some(0));
    }

    pub(crate) fn umount(&self, options: &[&str]) -> Run {
        Run::of(
            Command::new(BINARY)
                .arg("umount")
                .args(options)
                .arg(&self.0),
        )
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if mounts_at(&self.0) > 0 {
            self.umount(&["--lazy"]);
        }
    }
}

/// A serving process in the foreground.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) mount: Mounted,
    /// What it said, once it has ended.
    pub(crate) said: String,
}

impl Server {
    /// Starts it and waits until the mount answers.
    pub(crate) fn start(mut command: Command, mountpoint: PathBuf) -> Server {
        let server = Server::of(command.spawn().unwrap(), mountpoint);
        until("the mount answers", || {
            mounts_at(&server.mount.0) == 1 && fs::read_dir(&server.mount.0).is_ok()
        });
        server
    }

    pub(crate) fn of(child: Child, mountpoint: PathBuf) -> Server {
        Server {
            child,
            mount: Mounted(mountpoint),
            said: String::new(),
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        kill(self.child.id() as i32, signal);
    }

    /// Waits for the end; returns the exit code and how long it took.
    pub(crate) fn wait(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let mut code = None;
        until("the process ends", || {
            match self.child.try_wait().unwrap() {
                Some(status) => {
                    code = status.code();
                    true
                }
                None => false,
            }
        });
        let took = start.elapsed();
        self.hear_out();
        let said = &self.said;
        eprintln!("the mount has ended with {code:?} after {took:?}, and said:\n{said}");
        (code, took)
    }

    /// What it has said, which is shown when the test fails.
    fn hear_out(&mut self) {
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut self.said);
        }
    }

    /// The next line on stderr that contains `text`.
    pub(crate) fn stderr_line(&mut self, text: &str) -> String {
        let found = match self.child.stderr.take() {
            Some(stderr) => {
                let lines = BufReader::new(stderr).lines();
                lines.map(|l| l.unwrap()).find(|l| l.contains(text))
            }
            None => self.said.lines().find(|l| l.contains(text)).map(Into::into),
        };
        found.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && self.child.stderr.is_some() {
            // Both processes are gone, or will be soon: nobody else holds the pipe.
            self.hear_out();
            eprintln!("the mount was killed, and had said:\n{}", self.said);
        }
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: sends a signal to a process that this test has started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// True while a process runs and is no zombie.
pub(crate) fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many mounts of ours are on a directory.
pub(crate) fn mounts_at(path: &Path) -> usize {
    let escaped: String = path
        .to_str()
        .unwrap()
        .chars()
        .map(|c| match c {
            ' ' | '\n' | '\\' | '\t' => format!("\\{:03o}", c as u32),
            c => c.to_string(),
        })
        .collect();
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(" - fuse.modeloci "))
        .filter(|line| line.split(' ').nth(4) == Some(&escaped))
        .count()
}

/// The errno of something that must fail.
#[track_caller]
pub(crate) fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// A file mapped for reading.
pub(crate) struct Mapped(*mut libc::c_void, usize);

impl Mapped {
    pub(crate) fn new(path: &Path, flags: libc::c_int) -> Mapped {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        // SAFETY: maps a file anew, read-only; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        Mapped(start, len)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is alive as long as `self`, and nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.0.cast(), self.1) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` has mapped.
        unsafe { libc::munmap(self.0, self.1) };
    }
}
