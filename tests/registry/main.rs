//! Models in a registry: every command that reads, and real mounts with all that a server gives up, beside a
//! registry of which anything may go wrong. What the client does with each fault alone is tested in
//! `src/source/registry`.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unsafe_code
)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
#[cfg(debug_assertions)]
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use modeloci_test_support as support;
use support::noise;
use support::registry::{Access, Fault, Registry};
use support::run::Run;
use support::workspace::Workspace;

/// "user:hunter-1" and "user:hunter-2".
const ONE: &str = "dXNlcjpodW50ZXItMQ==";
const TWO: &str = "dXNlcjpodW50ZXItMg==";
const WEIGHTS: usize = 4 << 20;

struct Scene {
    workspace: Workspace,
    registry: Registry,
    files: Vec<(&'static str, Vec<u8>)>,
    digest: String,
}

/// A mount, until it is dropped.
struct Mounted<'a> {
    path: PathBuf,
    scene: &'a Scene,
}

fn files(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", br#"{"hidden_size": 4}"#.to_vec()),
        ("empty", Vec::new()),
        ("sub/words.txt", b"a few words\n".repeat(1000)),
        ("weights.bin", noise(seed, WEIGHTS)),
    ]
}

impl Scene {
    fn new() -> Scene {
        let mut scene = Scene {
            workspace: Workspace::new(),
            registry: Registry::start(),
            files: files(1),
            digest: String::new(),
        };
        scene.digest = scene.push("1", &scene.files);
        scene
    }

    /// Packs files, and gives the model a tag.
    fn push(&self, tag: &str, files: &[(&str, Vec<u8>)]) -> String {
        let model = self.workspace.path("model");
        for (name, bytes) in files {
            self.workspace.write(&format!("model/{name}"), bytes);
        }
        let archive = self.workspace.pack(&model, "m.tar", &["--force"]);
        fs::remove_dir_all(model).unwrap();
        let digest = self.registry.add_archive(&archive, tag);
        fs::remove_file(archive).unwrap();
        digest
    }

    fn reference(&self, tag: &str) -> String {
        // By its name, which somebody must look up.
        let host = self.registry.host().replace("127.0.0.1", "localhost");
        format!("{host}/team/m:{tag}")
    }

    /// The program, that knows nobody's credentials but those in `auth.json`.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.workspace.modeloci(args);
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .env("HOME", self.workspace.root())
            .env("REGISTRY_AUTH_FILE", self.workspace.path("auth.json"))
            // A server that does what it may not is ended.
            .env("MODELOCI_TEST_STRICT", "1");
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::within(Duration::from_secs(60), &mut self.command(args))
    }

    fn login(&self, auth: &str) {
        let host = self.reference("1").split('/').next().unwrap().to_string();
        let text = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
        // As tools write it: another file in its place.
        let new = self.workspace.write("auth.new", text);
        fs::rename(new, self.workspace.path("auth.json")).unwrap();
    }

    fn mount(&self, tag: &str, options: &[&str]) -> (Mounted<'_>, Run) {
        let path = self.workspace.path("mnt");
        fs::create_dir(&path).unwrap();
        let log = self.workspace.path("log");
        let (path_text, log) = (path.to_str().unwrap(), log.to_str().unwrap());
        let mut args = vec!["mount", "--log-file", log, "--registry-timeout", "2"];
        let reference = self.reference(tag);
        args.extend(options);
        args.extend([reference.as_str(), path_text]);
        let run = self.run(&args).ok();
        (Mounted { path, scene: self }, run)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.workspace.path("log")).unwrap_or_default()
    }

    fn has_all(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            assert!(&fs::read(dir.join(name)).unwrap() == bytes, "{name}");
        }
    }
}

impl Mounted<'_> {
    fn weights(&self, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join("weights.bin"))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset as u64)
            .map(|()| bytes)
    }

    #[track_caller]
    fn has(&self, offset: usize, length: usize) {
        let (_, weights) = self.scene.files.last().unwrap();
        let read = self.weights(offset, length);
        let read = read.unwrap_or_else(|error| panic!("{error}\n{}", self.scene.log()));
        assert!(read == weights[offset..offset + length]);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let path = self.path.to_str().unwrap();
        let _ = self.scene.command(&["umount", "--lazy", path]).status();
    }
}

#[test]
fn every_command_that_reads_takes_a_reference() {
    let scene = Scene::new();
    let reference = scene.reference("1");
    let inspected = scene.run(&["inspect", &reference]).ok();
    assert!(inspected.text().contains("All layers verified."));
    assert!(inspected.text().contains(&scene.digest));
    let before = scene.registry.sent();
    let listed = scene
        .run(&["inspect", "--no-verify", "--json", &reference])
        .ok();
    assert_eq!(listed.json()["manifest_digest"], scene.digest);
    assert!(
        scene.registry.sent() - before < 64 << 10,
        "the manifest, and no layer"
    );
    let names = scene.run(&["ls", &reference]).ok();
    assert_eq!(names.text(), "config.json\nempty\nsub\nweights.bin\n");
    let (name, bytes) = &scene.files[2];
    assert!(&scene.run(&["cat", &reference, name]).ok().stdout == bytes);
    scene.run(&["verify", &format!("oci://{reference}")]).ok();
    scene.run(&["unpack", &reference, "out"]).ok();
    scene.has_all(&scene.workspace.path("out"));
    // By its digest, which the registry must keep to.
    let pinned = format!("{reference}@{}", scene.digest);
    scene.run(&["verify", &pinned]).ok();
    scene
        .run(&["verify", &reference, "--digest", &scene.digest])
        .ok();
    let other = format!("sha256:{}", "0".repeat(64));
    scene
        .run(&["verify", &reference, "--digest", &other])
        .fails(4, &["was pinned"]);
}

#[test]
fn w1_what_cannot_be_read_is_told_with_what_to_do() {
    let scene = Scene::new();
    let reference = scene.reference("1");
    let run = |name: &str| scene.run(&["ls", name]);
    run(&scene.reference("2")).fails(1, &["no such tag", "/team/m:2"]);
    run(&reference.replace("team/m", "team/other")).fails(1, &["no such repository"]);
    run("oci://team/m:1").refused(2, "names no registry");
    run("team/m:1").fails(5, &["cannot open team/m:1"]);
    run("name.invalid/m:1").refused(5, "there is no such file");
    scene.registry.require(Access::Basic(ONE.into()));
    run(&reference).refused(5, "podman login");
    scene.login(TWO);
    let refused = run(&reference).refused(5, "auth.json");
    assert!(!refused.stderr.contains("hunter") && !refused.stderr.contains(TWO));
    scene.login(ONE);
    run(&reference).ok();
    scene.registry.go();
    run(&reference).refused(5, "refused");
    // What exists is a path, whatever it is called.
    let path = reference.split(':').next().unwrap().to_string();
    fs::create_dir_all(scene.workspace.path(&path).join("m")).unwrap();
    run(&format!("{path}/m")).fails(3, &[]);
}

/// A round trip each; more is read only when more is wanted.
#[test]
fn a_first_byte_takes_as_many_questions_as_there_are_steps_to_it() {
    let scene = Scene::new();
    let (mount, _) = scene.mount("1", &["-o", "max_readahead=4096"]);
    let seen = scene.registry.seen();
    assert!(seen[0].path.ends_with("/manifests/1") && seen[0].range.is_none());
    // The config; and what proves that the empty file is empty: its table, and its header.
    assert_eq!(seen.len(), 1 + 1 + 2, "{seen:?}");
    let before = scene.registry.sent();
    mount.has(WEIGHTS / 2, 1000);
    // The chunk table, the header of the file, the chunk.
    let seen = scene.registry.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let sent = scene.registry.sent() - before;
    assert!(
        sent < (512 << 10) + (64 << 10),
        "{sent} bytes for a chunk of 512 KiB"
    );
}

/// They have no chunk table: what hashes them and what decodes them read from their beginning to their end, and
/// what is read later is decoded once more.
#[test]
fn layers_of_other_tools_stream_through() {
    let mut scene = Scene::new();
    let noise = noise(3, 8 << 20);
    let archive = scene.workspace.path("foreign.tar");
    support::write_archive(&archive, &[("weights.bin", noise.as_slice())]);
    scene.registry.add_archive(&archive, "foreign");
    scene.files = vec![("weights.bin", noise)];
    let before = scene.registry.sent();
    let (mount, _) = scene.mount("foreign", &[]);
    mount.has(5 << 20, 1000);
    scene.has_all(&mount.path);
    let moved = scene.registry.sent() - before;
    let questions = scene.registry.seen().len();
    assert!(moved < 3 * (9 << 20) + (1 << 20), "{moved} bytes");
    assert!(questions < 40, "{questions} questions");
}

/// Whoever takes over a server may connect, and do nothing else that a server of an archive may not.
#[test]
#[cfg(debug_assertions)]
fn e18_a_server_that_may_connect_may_nothing_else() {
    let scene = Scene::new();
    let prey = scene.workspace.path("prey");
    fs::create_dir_all(prey.join("mounted")).unwrap();
    for file in ["secret", "victim"] {
        fs::write(prey.join(file), "secret").unwrap();
    }
    let _listener = UnixListener::bind(prey.join("socket")).unwrap();
    let path = scene.workspace.path("mnt");
    fs::create_dir(&path).unwrap();
    let log = scene.workspace.path("log");
    let (mountpoint, log) = (path.to_str().unwrap(), log.to_str().unwrap());
    let reference = scene.reference("1");
    let mut command = scene.command(&["mount", "--log-file", log, &reference, mountpoint]);
    command
        .env_remove("MODELOCI_TEST_STRICT")
        .env("MODELOCI_TEST_ESCAPE", &prey);
    Run::of(&mut command).ok();
    let mount = Mounted {
        path,
        scene: &scene,
    };
    let start = Instant::now();
    while !scene.log().contains("escape: read the keeper's memory") {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", scene.log());
        thread::sleep(Duration::from_millis(10));
    }
    let log = scene.log();
    let attempts: Vec<_> = log
        .lines()
        .filter(|line| line.contains("escape: "))
        .collect();
    assert!(attempts.len() > 20, "{log}");
    let done: Vec<_> = attempts
        .iter()
        .filter(|line| line.ends_with(": done"))
        .collect();
    assert!(done.is_empty(), "{done:?}");
    scene.has_all(&mount.path);
}

#[test]
fn w7_a_mount_keeps_to_what_its_tag_meant() {
    let scene = Scene::new();
    let (mount, run) = scene.mount("1", &[]);
    assert!(run.stderr.contains(&scene.digest), "{}", run.stderr);
    mount.has(0, 1000);
    let other = files(2);
    assert_ne!(scene.push("1", &other), scene.digest);
    scene.has_all(&mount.path);
    let status = scene
        .run(&["status", "--json", mount.path.to_str().unwrap()])
        .ok();
    assert_eq!(status.json()["manifest_digest"], scene.digest);
    assert_eq!(status.json()["sandbox"]["system_calls"], true);
    assert_eq!(status.json()["archive"], scene.reference("1"));
}

#[test]
fn w6_a_mount_outlives_its_registry() {
    let scene = Scene::new();
    let (mount, _) = scene.mount("1", &["-o", "max_readahead=4096"]);
    mount.has(0, 1000);
    scene.registry.go();
    mount.has(0, 1000);
    let start = Instant::now();
    let error = mount.weights(WEIGHTS / 2, 1000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    // The kernel asks twice.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Nothing else waits for that.
    let listed = fs::read_dir(&mount.path).unwrap().count();
    assert_eq!(listed, 4);
    assert!(scene.log().contains("within 2 s"), "{}", scene.log());
    scene.registry.come_back();
    mount.has(WEIGHTS / 2, 1000);
    for fault in [
        Fault::Cut(100),
        Fault::Unavailable,
        Fault::OtherRange,
        Fault::Stall(10),
    ] {
        scene.registry.fail(&[fault; 2]);
        mount.has(WEIGHTS / 4, 1000);
    }
    scene.has_all(&mount.path);
}

#[test]
fn w6_no_wrong_byte_leaves_a_mount() {
    let scene = Scene::new();
    let (mount, _) = scene.mount("1", &["-o", "max_readahead=4096"]);
    mount.has(0, 1000);
    scene.registry.always_fail(Some(Fault::Flipped));
    let error = mount.weights(WEIGHTS / 2, 1000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    scene.registry.always_fail(None);
    mount.has(WEIGHTS / 2, 1000);
    scene.has_all(&mount.path);
}

/// The server can read no file: its keeper does.
#[test]
fn w3_a_mount_follows_credentials_that_change() {
    let scene = Scene::new();
    scene.login(ONE);
    scene.registry.redirect();
    for wrap in [Access::Basic as fn(String) -> Access, |auth| {
        Access::Bearer(Some(auth))
    }] {
        scene.login(ONE);
        scene.registry.require(wrap(ONE.into()));
        let (mount, _) = scene.mount("1", &["-o", "max_readahead=4096"]);
        mount.has(0, 1000);
        scene.registry.expire();
        mount.has(1 << 20, 1000);
        scene.registry.require(wrap(TWO.into()));
        scene.registry.expire();
        assert!(mount.weights(2 << 20, 1000).is_err());
        scene.login(TWO);
        scene.has_all(&mount.path);
        drop(mount);
        let start = Instant::now();
        while fs::remove_dir(scene.workspace.path("mnt")).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(10));
        }
    }
    let log = scene.log();
    for secret in ["hunter", ONE, TWO, "token-", "signature"] {
        assert!(!log.contains(secret), "{log}");
    }
    let seen = scene.registry.seen();
    let storage = seen.iter().filter(|seen| seen.server == "storage");
    assert!(storage.clone().count() > 0);
    assert!(storage.into_iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn a_mount_asks_helpers_for_credentials() {
    let scene = Scene::new();
    scene.registry.require(Access::Basic(ONE.into()));
    let host = scene.reference("1").split('/').next().unwrap().to_string();
    let text = format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#);
    scene.workspace.write("auth.json", text);
    let helper = scene.workspace.write(
        "bin/docker-credential-test",
        "#!/bin/sh\nread host\necho '{\"Username\":\"user\",\"Secret\":\"hunter-1\"}'\n",
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let mountpoint = scene.workspace.path("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let reference = scene.reference("1");
    let mut command = scene.command(&["mount", &reference, mountpoint.to_str().unwrap()]);
    let path = std::env::var("PATH").unwrap();
    command.env(
        "PATH",
        format!("{}:{path}", helper.parent().unwrap().display()),
    );
    Run::of(&mut command).ok();
    let mount = Mounted {
        path: mountpoint,
        scene: &scene,
    };
    scene.has_all(&mount.path);
}
