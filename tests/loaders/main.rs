//! Real loaders give the same result from a mount as from the model's directory.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use workspace::{Workspace, every_packaging, has_modules, output};

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/loaders")
        .join(name)
}

/// Has a loader load a model from its directory and from mounts of every packaging. `modules` are
/// what it needs of Python.
#[track_caller]
fn loads_alike(loader: &str, modules: &str) {
    loads_alike_in("python3", loader, modules);
}

#[track_caller]
fn loads_alike_in(python: &str, loader: &str, modules: &str) {
    if !has_modules(python, modules) {
        return;
    }
    let workspace = Workspace::new();
    let model = workspace.path("model");
    fs::create_dir(&model).unwrap();
    output(
        Command::new(python)
            .arg(beside("make_model.py"))
            .arg(loader)
            .arg(&model),
    );
    let load = |directory: &Path| {
        // Some loaders talk on stdout.
        let result = workspace.path("result");
        let mut command = Command::new(python);
        output(
            command
                .arg(beside("load.py"))
                .arg(loader)
                .arg(directory)
                .arg(&result),
        );
        let text = fs::read_to_string(&result).unwrap();
        fs::remove_file(&result).unwrap();
        text
    };
    let expected = load(&model);
    assert!(expected.len() > 64, "{expected}");
    for archive in every_packaging(&workspace, &model) {
        let mount = workspace.mount(&archive);
        assert_eq!(load(&mount.0), expected, "{}", archive.display());
    }
}

#[test]
fn safetensors_and_numpy() {
    loads_alike("safetensors", "numpy, safetensors");
}

#[test]
fn onnxruntime() {
    loads_alike("onnxruntime", "numpy, onnxruntime");
}

#[test]
fn tokenizers() {
    loads_alike("tokenizers", "tokenizers");
}

#[test]
fn llama_cpp() {
    loads_alike("llama_cpp", "xllamacpp");
}

/// scripts/test says which python has torch: the distribution's, as a rule.
#[test]
fn torch() {
    let python = std::env::var("MODELOCI_TEST_TORCH").unwrap_or_else(|_| "python3".into());
    loads_alike_in(&python, "torch", "torch, safetensors");
}
