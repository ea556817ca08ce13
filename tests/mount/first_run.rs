//! The first commands that README.md shows, pasted as they stand.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{BINARY, Mounted, Packaging, Run, Scene};

const README: &str = include_str!("../../README.md");

/// The files that `scripts/fetch-model minilm` brings, and that a mount of them has.
const MINILM: [&str; 13] = [
    ".gitattributes",
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "data_config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// The next block of this kind in a page, and what stands behind it.
fn fenced<'a>(page: &'a str, kind: &str) -> (&'a str, &'a str) {
    let (_, block) = page.split_once(&format!("\n```{kind}\n")).unwrap();
    block.split_once("```\n").unwrap()
}

#[test]
fn the_first_commands_of_the_readme_do_what_it_shows() {
    let (commands, behind) = fenced(README, "sh");
    let (shown, _) = fenced(behind, "text");
    assert!(commands.contains("modeloci mount "), "{commands}");

    // The clone, with small files in the place of the real ones.
    let scene = Scene::empty(Packaging::Packed("auto"));
    fs::remove_dir(scene.path("mnt")).unwrap();
    for name in MINILM {
        let file = scene.path("minilm").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("of {name}\n")).unwrap();
    }
    let fetch = scene.path("scripts/fetch-model");
    assert!(
        commands.contains("scripts/fetch-model minilm"),
        "{commands}"
    );
    fs::create_dir(scene.path("scripts")).unwrap();
    fs::write(
        &fetch,
        "#!/bin/sh\n[ \"$*\" = minilm ] && echo \"$PWD/minilm\"\n",
    )
    .unwrap();
    fs::set_permissions(&fetch, Permissions::from_mode(0o755)).unwrap();

    let mounted = Mounted(scene.path("mnt"));
    let mut shell = Command::new("sh");
    scene.settle(shell.args(["-euc", commands]));
    let programs = Path::new(BINARY).parent().unwrap().to_str().unwrap();
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{programs}:{path}"));
    shell.env("LC_ALL", "C.UTF-8");
    let run = Run::of(&mut shell).ok();

    // What `ls` prints stands behind what `pack` does.
    let mut names: Vec<&str> = shown.split_whitespace().collect();
    names.sort_unstable();
    let lines: Vec<&str> = run.text().lines().collect();
    let listed = &lines[lines.len().saturating_sub(names.len())..];
    assert_eq!(listed, names, "{}", run.text());
    for name in MINILM {
        let bytes = fs::read(mounted.path(name)).unwrap();
        assert_eq!(bytes, format!("of {name}\n").as_bytes());
    }
    mounted.unmount();
}
