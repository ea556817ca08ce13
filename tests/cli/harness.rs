//! Runs the binary in a directory of its own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A temporary directory in which commands run.
pub(crate) struct Sandbox(tempfile::TempDir);

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An absolute path in the sandbox, as commands print it.
    pub(crate) fn real(&self, name: &str) -> String {
        let dir = self.0.path().canonicalize().unwrap();
        dir.join(name).to_str().unwrap().to_string()
    }

    /// Writes a file, and the directories above it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A model directory `model` of three files, one of them of several chunks.
    pub(crate) fn model(&self) -> Vec<(&'static str, Vec<u8>)> {
        let files = vec![
            ("config.json", b"{\"layers\": 2}".to_vec()),
            ("nested/tokenizer.json", b"[\"a\", \"b\"]".repeat(1000)),
            ("weights.bin", noise(3 * (1 << 20) + 17)),
        ];
        for (name, bytes) in &files {
            self.write(&format!("model/{name}"), bytes);
        }
        files
    }

    /// Packs `model` into `m.tar`; returns the manifest digest.
    pub(crate) fn pack(&self) -> String {
        let json = self
            .run(&[
                "pack",
                "model",
                "--name",
                "m",
                "--version",
                "1.0",
                "-o",
                "m.tar",
                "--json",
            ])
            .ok()
            .json();
        json["manifest_digest"].as_str().unwrap().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modeloci"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env_remove("MODELOCI_LOG")
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, b"")
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Run {
            line: args.join(" "),
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Names in the sandbox's top directory, sorted: what a command has left behind.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

/// What a command did.
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

    /// Success, and not a word on stderr.
    #[track_caller]
    pub(crate) fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "{}: {}", self.line, self.stderr);
        assert_eq!(self.stderr, "", "{}", self.line);
        self
    }

    /// Failure with a code, nothing on stdout, and an error that contains `text`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, text: &str) -> Run {
        assert_eq!(self.code, Some(code), "{}: {}", self.line, self.stderr);
        assert_eq!(self.text(), "", "{}", self.line);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        assert!(self.stderr.contains(text), "{}", self.stderr);
        self
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes that do not compress, always the same.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    modeloci_test_support::noise(1, len)
}
