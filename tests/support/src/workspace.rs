//! A directory in which the binary and other programs run, with mounts that end with the test.
//!
//! Programs of others may be missing on a developer's machine, where a test then says so and
//! passes. With `CI` set, as `scripts/test` does after it has installed them, the test fails.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::machine;
use crate::run::Run;

/// A temporary directory. What the program keeps for its user is beside it, and ends with it.
pub struct Workspace {
    root: PathBuf,
    user: PathBuf,
    dir: tempfile::TempDir,
}

impl Drop for Workspace {
    /// A process that was unmounted takes a moment to end, and may write a last line or an index while
    /// the directory is removed, which then fails.
    fn drop(&mut self) {
        for _ in 0..200 {
            match fs::remove_dir_all(self.dir.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

impl Workspace {
    pub fn new() -> Workspace {
        machine::set_up();
        let dir = tempfile::tempdir().unwrap();
        // An ordinary user must get in, too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let workspace = Workspace {
            root: dir.path().join("root"),
            user: dir.path().join("user"),
            dir,
        };
        fs::create_dir(&workspace.root).unwrap();
        // Whoever the command is run as.
        let state = workspace.user.join("state");
        fs::create_dir_all(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o1777)).unwrap();
        workspace
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of something in the directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The program's directory for what it can make anew.
    pub fn cache(&self) -> PathBuf {
        self.user.join("cache/modeloci")
    }

    /// Writes a file and the directories above it; names that end in `.sh` are executable.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        if name.ends_with(".sh") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    /// The binary, in the directory.
    pub fn modeloci<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(crate::binary());
        self.settle(command.args(args));
        command
    }

    /// The command runs in the directory, with nothing of the caller's environment that matters, and
    /// leaves nothing elsewhere: root's messages would go to `/var/log`.
    pub fn settle(&self, command: &mut Command) {
        command
            .current_dir(&self.root)
            .env("XDG_CACHE_HOME", self.user.join("cache"))
            .env("XDG_STATE_HOME", self.user.join("state"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("MODELOCI_LOG")
            .env_remove("SOURCE_DATE_EPOCH");
    }

    /// Names in the directory, sorted: what a command has left behind.
    pub fn names(&self) -> Vec<String> {
        names(&self.root)
    }

    /// Packs `model` as `archive` with more options; returns the archive's path.
    pub fn pack(&self, model: &Path, archive: &str, options: &[&str]) -> PathBuf {
        let path = self.path(archive);
        let mut command = self.modeloci(&["pack", "--name", "m", "--version", "1.0", "-o"]);
        output(command.arg(&path).args(options).arg(model));
        path
    }

    /// Mounts an archive.
    pub fn mount(&self, archive: &Path) -> Mounted {
        self.mount_with(archive, &[])
    }

    /// The same with options.
    pub fn mount_with(&self, archive: &Path, options: &[&str]) -> Mounted {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let mountpoint = self.path(format!("mnt-{name}"));
        fs::create_dir_all(&mountpoint).unwrap();
        let mut command = self.modeloci(&["mount"]);
        output(command.args(options).arg(archive).arg(&mountpoint));
        Mounted(mountpoint)
    }
}

/// A mount; unmounted at the end of the test.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let umount = |options: &[&str]| {
            let mut command = Command::new(crate::binary());
            command.arg("umount").args(options).arg(&self.0);
            command.output().is_ok_and(|output| output.status.success())
        };
        // A program that has just ended may still hold the mount for a moment.
        let clean = umount(&[]) || umount(&["--lazy"]);
        if !std::thread::panicking() {
            assert!(clean, "{} is not unmounted", self.0.display());
        }
    }
}

/// Runs a program that must succeed; returns its stdout.
#[track_caller]
pub fn output(command: &mut Command) -> Vec<u8> {
    let run = Run::of(command);
    let said = String::from_utf8_lossy(&run.stdout);
    let code = run.code;
    assert_eq!(code, Some(0), "{command:?}: {said}{}", run.stderr);
    run.stdout
}

/// Runs a shell script that must succeed; returns its stdout. `$1` and on are `args`.
#[track_caller]
pub fn shell(script: &str, args: &[&Path]) -> Vec<u8> {
    let script = format!("set -eu\n{script}");
    output(
        Command::new("bash")
            .args(["-o", "pipefail", "-c", &script, "bash"])
            .args(args),
    )
}

/// True when a program is there; with `CI` set it must be.
#[track_caller]
pub fn has(program: &str) -> bool {
    available(program, finds(program))
}

/// True when a program is there.
pub fn finds(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// True when python3 can import all of the modules; with `CI` set it must.
#[track_caller]
pub fn python_has(modules: &str) -> bool {
    has_modules("python3", modules)
}

/// The same for another python.
#[track_caller]
pub fn has_modules(python: &str, modules: &str) -> bool {
    let mut command = Command::new(python);
    command
        .arg("-c")
        .arg(format!("import {modules}"))
        .stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| status.success());
    available(&format!("{python} with {modules}"), found)
}

#[track_caller]
pub fn available(what: &str, found: bool) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{what} is missing");
        eprintln!("skipped: {what} is missing");
    }
    found
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All files below a directory: path relative to it, and the absolute path.
pub fn files_below(root: &Path) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            // Links are not followed: nothing of ours may be one.
            if path.symlink_metadata().unwrap().is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.push((name.to_string(), path));
            }
        }
    }
    files.sort();
    files
}

/// Packs `model` in every way that a mount must serve alike: our own archives, and one that
/// another tool could have written. Returns the archives.
pub fn every_packaging(workspace: &Workspace, model: &Path) -> Vec<PathBuf> {
    let mut archives: Vec<PathBuf> = [
        ("default", "auto"),
        ("gzip", "gzip:6"),
        ("zstd", "zstd"),
        ("none", "none"),
    ]
    .into_iter()
    .map(|(name, method)| workspace.pack(model, &format!("{name}.tar"), &["--compression", method]))
    .collect();
    let files = files_below(model);
    let contents: Vec<_> = files
        .iter()
        .map(|(name, path)| (name.as_str(), fs::read(path).unwrap()))
        .collect();
    let list: Vec<_> = contents
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    let foreign = workspace.path("foreign.tar");
    crate::write_archive(&foreign, &list);
    archives.push(foreign);
    archives
}
