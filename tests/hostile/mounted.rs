//! A model mounted for the time of a test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sandbox::{Run, Sandbox, finish};

/// Unmounts when dropped.
pub(crate) struct Mounted<'a> {
    sandbox: &'a Sandbox,
    point: &'static str,
}

impl<'a> Mounted<'a> {
    /// Mounts an archive of the sandbox at `mnt`.
    #[track_caller]
    pub(crate) fn new(sandbox: &'a Sandbox, archive: &str) -> Mounted<'a> {
        Mounted::with(sandbox, archive, &["--no-index"])
    }

    /// Mounts with further arguments, about indexes at least.
    #[track_caller]
    pub(crate) fn with(sandbox: &'a Sandbox, archive: &str, more: &[&str]) -> Mounted<'a> {
        let (mounted, run) = Mounted::attempt_with(sandbox, archive, more);
        run.ok();
        mounted.unwrap()
    }

    /// Mounts, or says why not.
    pub(crate) fn attempt(sandbox: &'a Sandbox, archive: &str) -> (Option<Mounted<'a>>, Run) {
        Mounted::attempt_with(sandbox, archive, &["--no-index"])
    }

    fn attempt_with(
        sandbox: &'a Sandbox,
        archive: &str,
        more: &[&str],
    ) -> (Option<Mounted<'a>>, Run) {
        sandbox.mkdir("mnt");
        let args = ["mount", archive, "mnt", "--log-file", "log"];
        let run = sandbox.run(&[&args, more].concat());
        let point = "mnt";
        let mounted = (run.code == Some(0)).then(|| Mounted { sandbox, point });
        (mounted, run)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.sandbox.path(self.point)
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path().join(name))
    }

    /// The file is damaged: reading it gives EIO.
    #[track_caller]
    pub(crate) fn eio(&self, name: &str) {
        match self.read(name) {
            Ok(_) => panic!("{name} was served"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{name}: {error}"),
        }
    }

    /// The one line of error in the log that names the file, once it is written.
    #[track_caller]
    pub(crate) fn logged(&self, name: &str, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let log = fs::read_to_string(self.sandbox.path("log")).unwrap_or_default();
            assert!(!log.contains("panicked"), "{log}");
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| line.to_lowercase().contains("error") && line.contains(name))
                .collect();
            if lines.is_empty() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            assert!(!lines.is_empty(), "no line about {name}: {log}");
            for word in words {
                assert!(
                    lines.iter().all(|line| line.contains(word)),
                    "no {word:?}: {log}"
                );
            }
            return;
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let command = self.sandbox.command(&["umount", "--lazy", self.point]);
        let run = finish(command);
        if !thread::panicking() {
            assert_eq!(run.code, Some(0), "{}", run.stderr);
        }
    }
}

/// The bytes of a file that is mapped, as far as it says that it goes.
#[allow(unsafe_code)]
pub(crate) fn mapped(file: &fs::File) -> Vec<u8> {
    let len = file.metadata().unwrap().len() as usize;
    if len == 0 {
        return Vec::new();
    }
    let (prot, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
    // SAFETY: nothing else is at the place that the kernel chooses; the file does not change, and what
    // is mapped is copied before it is unmapped.
    unsafe {
        let start = mmap(std::ptr::null_mut(), len, prot, flags, file, 0).unwrap();
        let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len).to_vec();
        munmap(start, len).unwrap();
        bytes
    }
}

/// Detaches whatever a failed test may have left.
pub(crate) fn detach(path: &Path) {
    let program = if crate::sandbox::is_root() {
        ("umount", vec!["-l"])
    } else {
        ("fusermount3", vec!["-u", "-z"])
    };
    let _ = std::process::Command::new(program.0)
        .args(program.1)
        .arg(path)
        .stderr(std::process::Stdio::null())
        .status();
}
