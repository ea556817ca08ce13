//! What users point at a mount: the tools of a file system see exactly the files that were packed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::{self as support, workspace};
use std::fs;
use std::path::{Path, PathBuf};

use workspace::{Mounted, Workspace, every_packaging, has, python_has, shell};

/// A model, its mounts in every packaging, and a file `sums` of `sha256sum`.
struct Scene {
    // Unmounted before the directory goes.
    mounts: Vec<Mounted>,
    model: PathBuf,
    workspace: Workspace,
}

impl Scene {
    fn new() -> Scene {
        let workspace = Workspace::new();
        let text: String = (0..150_000)
            .map(|n| format!("{} line\n", n * 7919 % 10_007))
            .collect();
        for (name, bytes) in [
            ("config.json", b"{\"layers\": 2}\n".to_vec()),
            ("empty", Vec::new()),
            ("nested/deeper/run.sh", b"#!/bin/sh\necho served\n".to_vec()),
            ("nested/with space/имя.txt", text.into_bytes()),
            ("weights.bin", support::noise(5, (3 << 20) + 4097)),
            ("sparse-looking.bin", vec![0; 2 << 20]),
            ("page-minus-1", support::noise(6, 4095)),
        ] {
            workspace.write(&format!("model/{name}"), &bytes);
        }
        let model = workspace.path("model");
        let sums = shell(
            "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum",
            &[&model],
        );
        fs::write(workspace.path("sums"), sums).unwrap();
        let archives = every_packaging(&workspace, &model);
        let mounts = archives
            .iter()
            .map(|archive| workspace.mount(archive))
            .collect();
        Scene {
            mounts,
            model,
            workspace,
        }
    }

    /// Runs a script on each mount: `$1` is the mount, `$2` the model, `$3` the sums, `$4` a
    /// directory that does not exist yet.
    #[track_caller]
    fn each(&self, script: &str) {
        for (i, mount) in self.mounts.iter().enumerate() {
            let scratch = self.workspace.path(format!("scratch-{i}"));
            shell(
                script,
                &[
                    &mount.0,
                    &self.model,
                    &self.workspace.path("sums"),
                    &scratch,
                ],
            );
            if scratch.exists() {
                // What was copied with its modes may be read-only.
                shell("chmod -R u+w \"$1\" && rm -rf \"$1\"", &[&scratch]);
            }
        }
    }
}

#[test]
fn compare_and_list() {
    let scene = Scene::new();
    scene.each("diff -r \"$2\" \"$1\"");
    scene.each("cd \"$1\" && sha256sum --quiet --strict -c \"$3\"");
    // Names, types and sizes; and who may execute.
    scene.each(
        "list() { (cd \"$1\" && find . -type f -printf '%P %s\\n' -o -printf '%P/\\n' | LC_ALL=C sort); }
         diff <(list \"$2\") <(list \"$1\")",
    );
    scene.each(
        "executables() { (cd \"$1\" && find . -type f -perm /111); }
         diff <(executables \"$2\") <(executables \"$1\")",
    );
    scene.each("[ -z \"$(find \"$1\" -perm /222 -o ! -type f ! -type d)\" ]");
    scene.each("[ \"$(ls -lR \"$1\" | grep -c ^-)\" = \"$(wc -l <\"$3\")\" ]");
    scene.each("grep -q '^7919 line' \"$1/nested/with space/имя.txt\"");
    scene.each("[ \"$(\"$1/nested/deeper/run.sh\")\" = served ]");
    // Space and inodes in use, as everybody else reports them.
    scene.each("df \"$1\" >/dev/null && du -s \"$1\" >/dev/null && stat -f \"$1\" >/dev/null");
}

#[test]
fn copy_and_archive() {
    let scene = Scene::new();
    scene.each("cp -a \"$1\" \"$4\" && diff -r \"$2\" \"$4\"");
    scene.each("cp -r --sparse=always \"$1\" \"$4\" && diff -r \"$2\" \"$4\"");
    scene.each("mkdir \"$4\" && tar -C \"$1\" -c . | tar -C \"$4\" -x && diff -r \"$2\" \"$4\"");
    if has("rsync") {
        scene.each("rsync -a -c \"$1/\" \"$4/\" && diff -r \"$2\" \"$4\"");
        // By checksum the mount is what the model is: nothing to transfer.
        scene.each("[ -z \"$(rsync -r -c -n -i \"$1/\" \"$2/\")\" ]");
    }
    scene.each("mkdir \"$4\" && dd if=\"$1/weights.bin\" of=\"$4/w\" bs=1000 status=none && cmp \"$4/w\" \"$2/weights.bin\"");
    scene.each("cmp <(tail -c 5000 \"$1/weights.bin\") <(tail -c 5000 \"$2/weights.bin\")");
}

/// Maps, sends and copies within the kernel, as loaders and servers do.
#[test]
fn map_and_send() {
    if !python_has("mmap, os") {
        return;
    }
    let scene = Scene::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kernel_paths.py");
    scene.each(&format!("python3 '{}' \"$2\" \"$1\"", script.display()));
}
