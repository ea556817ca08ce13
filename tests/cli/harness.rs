//! Runs the binary in a directory of its own.

use std::ops::Deref;
use std::process::Command;

pub(crate) use modeloci_test_support::noise;
pub(crate) use modeloci_test_support::run::Run;
use modeloci_test_support::workspace::Workspace;
pub(crate) use modeloci_test_support::workspace::names;

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

    /// An absolute path in the sandbox, as commands print it.
    pub(crate) fn real(&self, name: &str) -> String {
        let dir = self.root().canonicalize().unwrap();
        dir.join(name).to_str().unwrap().to_string()
    }

    /// A model directory `model` of three files, one of them of several chunks.
    pub(crate) fn model(&self) -> Vec<(&'static str, Vec<u8>)> {
        let files = vec![
            ("config.json", b"{\"layers\": 2}".to_vec()),
            ("nested/tokenizer.json", b"[\"a\", \"b\"]".repeat(1000)),
            ("weights.bin", noise(1, 3 * (1 << 20) + 17)),
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
            .quiet()
            .json();
        json["manifest_digest"].as_str().unwrap().to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.modeloci(args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }
}
