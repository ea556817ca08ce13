//! A real mount of an archive, for tests that only read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An archive, mounted on a directory of its own until dropped.
pub struct Mount {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mount {
    pub fn new(archive: &Path) -> Mount {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let mount = Mount {
            path: dir.path().join("mnt"),
            _dir: dir,
        };
        let done = Command::new(crate::binary())
            .args(["mount", "--no-index", "--"])
            .arg(archive)
            .arg(mount.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        mount
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new(crate::binary())
            .args(["umount", "--lazy", "--"])
            .arg(self.path())
            .status();
    }
}
