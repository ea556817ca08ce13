//! A real mount of an archive, for tests that only read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{Workspace, output};

/// An archive, mounted on a directory of its own until dropped.
pub struct Mount {
    path: PathBuf,
    workspace: Workspace,
}

impl Mount {
    pub fn new(archive: &Path) -> Mount {
        let workspace = Workspace::new();
        let mount = Mount {
            path: workspace.path("mnt"),
            workspace,
        };
        fs::create_dir(mount.path()).unwrap();
        let mut command = mount.workspace.modeloci(&["mount", "--no-index", "--"]);
        output(command.arg(archive).arg(mount.path()));
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
