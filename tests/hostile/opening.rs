//! What opening a model takes, whatever its documents say.

use std::fmt::Write as _;
use std::fs;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use modeloci::Model;
use modeloci::model::OpenOptions;
use modeloci_test_support::noise;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::forge::{Layout, Tar, blob_name, descriptor, digest, gzip};
use crate::mounted::Mounted;
use crate::sandbox::{Sandbox, is_mounted};

const MIB: u64 = 1 << 20;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const MODEL_CONFIG: &str = "application/vnd.modeloci.config.v1+json";
const LARGEST: usize = 16 << 20;

/// A manifest of nearly the largest size, of layers that all name the blob of these bytes, `path`
/// giving their names and what else their annotations have.
fn manifest_of(blob: &[u8], path: impl Fn(usize) -> String) -> Vec<u8> {
    let config = descriptor(MODEL_CONFIG, CONFIG);
    let mut text =
        format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":["#);
    let (digest, size) = (digest(blob), blob.len());
    for n in 0.. {
        let annotations = path(n);
        let mut layer = String::new();
        let _ = write!(
            layer,
            r#"{{"mediaType":"a","digest":"{digest}","size":{size},"annotations":{{{annotations}}}}},"#
        );
        if n == 98_000 || text.len() + layer.len() > LARGEST - 100 {
            break;
        }
        text.push_str(&layer);
    }
    text.pop();
    text.push_str("]}");
    text.into_bytes()
}

const CONFIG: &[u8] = br#"{"model_name":"m","version":"1"}"#;

fn title(name: impl std::fmt::Display) -> String {
    format!(r#""org.opencontainers.image.title":"{name}""#)
}

/// An archive of one manifest, the root's copy of it included, and of blobs.
fn archive(manifest: Vec<u8>, blobs: &[&[u8]]) -> Layout {
    let mut layout = Layout::of([]);
    layout.remove("config.json");
    layout.add_blob(CONFIG);
    for blob in blobs {
        layout.add_blob(blob);
    }
    layout.set_manifest(manifest);
    layout
}

/// The largest memory of a process and of those that it started, in bytes.
fn memory_of(pid: u32) -> u64 {
    let of_one = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|c| c.parse().ok());
    of_one(pid) + children.map(memory_of).sum::<u64>()
}

/// Mounts with the smallest cache and unmounts again; the exit code, and the peak of memory.
fn mount(sandbox: &Sandbox) -> (Option<i32>, u64) {
    mount_with(sandbox, &[])
}

fn mount_with(sandbox: &Sandbox, options: &[&str]) -> (Option<i32>, u64) {
    sandbox.mkdir("mnt");
    let args = [
        "mount",
        "-f",
        "m.tar",
        "mnt",
        "--no-index",
        "--cache-size",
        "16MiB",
    ];
    let mut child: Child = sandbox.command(&args).args(options).spawn().unwrap();
    let (mut peak, began, mut asked) = (0, Instant::now(), false);
    let code = loop {
        peak = peak.max(memory_of(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if !asked && is_mounted(&sandbox.path("mnt")) {
            asked = true;
            peak = peak.max(memory_of(child.id()));
            let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(100), "it hangs");
        thread::sleep(Duration::from_micros(500));
    };
    (code, peak)
}

/// The promise of a mount with the smallest cache.
#[track_caller]
fn keeps_the_promise(what: &str, layout: &Layout, code: i32) {
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", layout.to_bytes());
    let (found, peak) = mount(&sandbox);
    assert_eq!(found, Some(code), "{what}");
    assert!(peak > MIB, "{what}: nothing was measured");
    assert!(peak <= 80 * MIB, "{what}: {} MiB", peak / MIB);
}

#[test]
fn r16_an_index_of_many_large_manifests() {
    let blob = &b"blob"[..];
    let mut layout = Layout::of([]);
    let mut manifests = Vec::new();
    for n in 0..8 {
        let manifest = manifest_of(blob, |_| title(n));
        manifests.push(descriptor(MANIFEST, &manifest));
        layout.add_blob(&manifest);
    }
    layout.edit_index(|index| index["manifests"] = Value::Array(manifests));
    layout.remove("manifest.json");
    keeps_the_promise("manifests", &layout, 2);
}

#[test]
fn r16_documents_as_large_as_they_may_be() {
    let blob = &b"blob"[..];
    let of =
        |annotations: &dyn Fn(usize) -> String| archive(manifest_of(blob, annotations), &[blob]);
    // What does not fit is refused with the size that would do, before it is taken.
    keeps_the_promise("layers", &of(&|n| title(format!("{n:05}"))), 5);
    let long = "a".repeat(200);
    let path = |n| vec![format!("{n:03}{long}"); 18].join("/");
    keeps_the_promise("long paths", &of(&|n| title(path(n))), 5);
    let deep = |n| vec![format!("{n:x}"); 60].join("/");
    keeps_the_promise("directories", &of(&|n| title(deep(n))), 5);
    let other = "y".repeat(4_000);
    let annotated = |n| format!(r#"{},"x":"{other}""#, title(n));
    keeps_the_promise("annotations", &of(&annotated), 0);

    let many = json!({"o": vec![json!({"a": 1}); 16_000], "n": vec![0; 90_000]});
    let config = json!({"model_name": "m", "version": "1", "metadata": many}).to_string();
    let mut layout = Layout::sample();
    layout.add_blob(config.as_bytes());
    layout.remove("config.json");
    layout.edit_manifest(|m| m["config"] = descriptor(MODEL_CONFIG, config.as_bytes()));
    keeps_the_promise("config", &layout, 0);
}

/// Also where the manifest is named, or pinned.
#[test]
fn r16_an_index_as_large_as_it_may_be() {
    let mut layout = Layout::sample();
    layout.edit_index(|index| {
        let list = index["manifests"].as_array_mut().unwrap();
        list[0]["annotations"] = json!({"org.opencontainers.image.ref.name": "v"});
        let annotations: serde_json::Map<String, Value> =
            (0..4_000).map(|n| (format!("{n:04}"), "".into())).collect();
        for n in 0..340 {
            let digest = digest(format!("{n}").as_bytes());
            list.push(json!({"mediaType": MANIFEST, "digest": digest, "size": 1,
                "annotations": annotations}));
        }
    });
    let pin = layout.manifest_digest();
    for options in [&["--ref", "v"][..], &["--digest", &pin]] {
        let sandbox = Sandbox::new();
        sandbox.write("m.tar", layout.to_bytes());
        let (found, peak) = mount_with(&sandbox, options);
        assert_eq!(found, Some(0), "{options:?}");
        assert!(
            peak > MIB && peak <= 80 * MIB,
            "{options:?}: {} MiB",
            peak / MIB
        );
    }
}

#[test]
fn r16_more_blobs_than_fit_are_refused_before_they_are_opened() {
    let blobs: Vec<String> = (0..60_000).map(|n| n.to_string()).collect();
    let mut layout = Layout::of([]);
    let layers: Vec<Value> = blobs
        .iter()
        .map(|blob| {
            let mut layer = descriptor("a", blob.as_bytes());
            layer["annotations"] = json!({"org.opencontainers.image.title": blob});
            layer
        })
        .collect();
    layout.edit_manifest(|m| m["layers"] = Value::Array(layers));
    let named = blobs
        .iter()
        .map(|b| (blob_name(b.as_bytes()), b.clone().into_bytes()));
    layout.entries.extend(named);
    keeps_the_promise("blobs", &layout, 5);
    // With the size that the message names it mounts.
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", layout.to_bytes());
    sandbox.mkdir("mnt");
    let args = [
        "mount",
        "m.tar",
        "mnt",
        "--no-index",
        "--cache-size",
        "16MiB",
    ];
    let refused = sandbox.run(&args).fails(5, &["--cache-size"]);
    let size = refused.stderr.split("--cache-size ").nth(1).unwrap();
    let size = size.split_whitespace().next().unwrap();
    let mounted = Mounted::with(&sandbox, "m.tar", &["--no-index", "--cache-size", size]);
    assert_eq!(mounted.read("59999").unwrap(), b"59999");
}

#[test]
fn r5_opening_and_reading_end_when_they_are_told_to() {
    static CANCEL: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.tar");
    let bytes = noise(3, 3 << 20);
    modeloci_test_support::write_archive(&path, &[("f.bin", &bytes), ("empty", b"")]);
    let options = OpenOptions {
        cancel: Some(&CANCEL),
        ..OpenOptions::default()
    };
    let interrupted = |error: modeloci::Error| {
        assert_eq!(error.kind(), modeloci::ErrorKind::Environment);
        assert!(error.to_string().contains("interrupted"), "{error}");
    };
    CANCEL.store(true, Ordering::Relaxed);
    interrupted(Model::open(&path, &options).err().unwrap());
    CANCEL.store(false, Ordering::Relaxed);
    let model = Model::open(&path, &options).unwrap();
    let inode = model.find("f.bin").unwrap().inode;
    CANCEL.store(true, Ordering::Relaxed);
    interrupted(model.read_at(inode, 0, 100).unwrap_err());
    for report in modeloci::model::verify::verify(&model, 2, &|_, _| {}) {
        interrupted(report.outcome.unwrap_err());
    }
    // Nothing is wrong with the layers.
    CANCEL.store(false, Ordering::Relaxed);
    assert!(model.read_at(inode, 0, 100).unwrap() == bytes[..100]);
}

/// Two kilobytes each, of which a pass decodes 16 MiB.
#[test]
fn l15_what_stands_behind_empty_files_is_counted() {
    let layers: Vec<(String, Vec<u8>)> = (0..16)
        .map(|n| {
            let name = format!("empty{n}");
            let tail = vec![0; 15 << 20];
            let tar = Tar::new().file(&name, b"").raw(&tail).end();
            (name, gzip(&tar))
        })
        .collect();
    let layout = |count: usize| {
        let layers = layers.iter().take(count);
        Layout::of_layers(layers.map(|(name, blob)| (name.as_str(), blob.clone())))
    };
    let sandbox = Sandbox::new();
    sandbox.write("few.tar", layout(2).to_bytes());
    sandbox.run(&["inspect", "--no-verify", "few.tar"]).quiet();
    sandbox.write("many.tar", layout(16).to_bytes());
    let args = ["inspect", "--no-verify", "many.tar"];
    sandbox.run(&args).fails(3, &["would be read and decoded"]);
}

/// One line for each file, and one for each layer.
#[test]
fn l14_a_listing_is_in_proportion_to_the_manifest() {
    let layer = |n: usize, media_type: &str, blob: &[u8]| {
        let mut layer = descriptor(media_type, blob);
        layer["annotations"] = json!({"org.opencontainers.image.title": format!("f{n}")});
        layer
    };
    let mut layout = Layout::of([]);
    layout.add_blob(b"blob");
    layout.add_blob(b"other");
    let mut layers: Vec<Value> = (0..300).map(|n| layer(n, "a", b"blob")).collect();
    layers.push(layer(300, "application/vnd.oci.empty.v1+json", b"other"));
    // One that is a placeholder indeed, so that there are more layers than files.
    layers.push(descriptor("application/vnd.oci.empty.v1+json", b"{}"));
    layout.edit_manifest(|m| m["layers"] = Value::Array(layers));
    let sandbox = Sandbox::new();
    sandbox.write("m.tar", layout.to_bytes());
    let run = sandbox.run(&["inspect", "--no-verify", "m.tar"]);
    let text = run.text();
    let lines = text.lines().count();
    assert!((301..2 * 301 + 20).contains(&lines), "{lines}");
    assert!(text.contains("Layers (301)"), "{text}");
}
