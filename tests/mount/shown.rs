//! Commands that documents show, pasted as they stand.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{BINARY, Mounted, Packaging, Run, Scene, mounts_at, until};
use crate::meanwhile::meanwhile;

const README: &str = include_str!("../../README.md");
const MOUNTING: &str = include_str!("../../docs/mounting.md");
const CONTAINERS: &str = include_str!("../../docs/containers.md");

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

/// The first commands below a heading.
fn commands(page: &str, heading: &str) -> String {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap();
    fenced(section, "sh").0.to_string()
}

/// Runs commands in the directory, where `modeloci` is the binary; each must succeed.
fn paste(scene: &Scene, commands: &str) -> Run {
    let mut shell = Command::new("sh");
    scene.settle(shell.args(["-euc", commands]));
    let programs = Path::new(BINARY).parent().unwrap().to_str().unwrap();
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{programs}:{path}"));
    shell.env("LC_ALL", "C.UTF-8");
    Run::of(&mut shell).ok()
}

/// An archive of one file, `config.json`, of these bytes.
fn pack_one(scene: &Scene, archive: &str, bytes: &str) {
    fs::create_dir_all(scene.path("one")).unwrap();
    fs::write(scene.path("one/config.json"), bytes).unwrap();
    let line = "pack one --name llama --version 1 --output";
    let line: Vec<&str> = line.split(' ').chain([archive]).collect();
    scene.run(&line).ok();
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
    let run = paste(&scene, commands);

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

#[test]
fn a_new_version_is_taken_over_without_a_gap() {
    let scene = Scene::empty(Packaging::Packed("auto"));
    pack_one(&scene, "llama-1.0.0.tar", "old");
    pack_one(&scene, "llama-1.1.0.tar", "new");
    let shown = commands(MOUNTING, "### A new version without a gap");
    let shown = shown.strip_prefix("cd /srv/models\n").unwrap();
    let (before, after) = shown.split_once("\n\n").unwrap();
    let (after, end) = after.split_once("# restart the servers; then\n").unwrap();

    let old = Mounted(scene.path("llama-1.0.0"));
    let new = Mounted(scene.path("llama-1.1.0"));
    paste(&scene, before);
    let read = || fs::read_to_string(scene.path("llama/config.json")).unwrap();
    assert_eq!(read(), "old");
    let server = || assert!(["old", "new"].contains(&read().as_str()));
    meanwhile([server, server], || paste(&scene, after));
    assert_eq!(read(), "new");
    until("nobody has the old version open", || {
        old.umount(&[]).code == Some(0)
    });
    assert!(end.starts_with("modeloci umount llama-1.0.0 "), "{end}");
    assert_eq!(mounts_at(&old.0), 0);
    new.unmount();
}

/// Processes that name this path.
fn processes_of(path: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let path = path.to_str().unwrap().as_bytes();
    let named = |line: &Vec<u8>| line.windows(path.len()).any(|part| part == path);
    lines.filter(named).count()
}

#[test]
fn a_user_namespace_is_enough_and_the_mount_ends_with_it() {
    let probe = Command::new("unshare").args(["-Urm", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: this user cannot make user namespaces");
        return;
    }
    let scene = Scene::empty(Packaging::Packed("auto"));
    pack_one(&scene, "llama-1.0.0.tar", "served");
    let shown = commands(CONTAINERS, "## Without root");
    assert!(shown.contains("SERVER"), "{shown}");
    let run = paste(&scene, &shown.replace("SERVER", "cat mnt/config.json"));
    assert_eq!(run.text(), "served");
    let log = fs::read_to_string(scene.path("mount.log")).unwrap();
    assert!(log.contains("mounted"), "{log}");
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
    until("its processes end", || {
        processes_of(&scene.path("llama-1.0.0.tar")) == 0
    });
}
