//! Directories that `oras push` has packed: one layer, whose file has its name in the layer alone.

use std::fs;

use serde_json::json;

use crate::forge::{Header, Layout, Tar, descriptor, gzip};
use crate::mounted::Mounted;
use crate::sandbox::Sandbox;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const PLAIN_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive as ORAS writes it, of layers that are directories of these names.
fn pushed(layers: &[(&str, &[u8])]) -> Layout {
    let layers = layers.iter().map(|(title, tar)| (*title, gzip(tar)));
    let mut layout = Layout::of_layers(layers);
    layout.add_blob(b"{}");
    layout.edit_manifest(|manifest| {
        manifest["config"] = descriptor(EMPTY, b"{}");
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["annotations"]["io.deis.oras.content.unpack"] = json!("true");
        }
    });
    layout
}

/// The tar of a directory with one file.
fn directory(name: &str, file: &str, content: &[u8]) -> Vec<u8> {
    let path = format!("{name}/");
    let tar = Tar::new().entry(Header::file(path, 0).kind(b'5'), &[]);
    tar.file(file, content).end()
}

#[test]
fn l16_a_directory_of_one_file_keeps_its_directory() {
    let sandbox = Sandbox::new();
    let config = directory("model", "model/config.json", b"{}");
    let weights = directory("a/b", "./a/b/c/weights.bin", &[7; 3 << 20]);
    let empty = directory("none", "none/empty", b"");
    let mut layout = pushed(&[("model", &config), ("a/b", &weights), ("none", &empty)]);
    // The plain type that clients give to everything.
    layout.edit_manifest(|manifest| manifest["layers"][0]["mediaType"] = json!(PLAIN_TAR));
    sandbox.write("m.tar", layout.to_bytes());
    let files: [(&str, &[u8]); 3] = [
        ("a/b/c/weights.bin", &[7; 3 << 20]),
        ("model/config.json", b"{}"),
        ("none/empty", b""),
    ];
    sandbox.run(&["unpack", "m.tar", "out"]).ok();
    for round in 0..2 {
        // The second time an index is there.
        let mount = Mounted::with(&sandbox, "m.tar", &["--index-dir", "index"]);
        for (path, content) in files {
            assert_eq!(fs::read(sandbox.path("out").join(path)).unwrap(), content);
            assert_eq!(mount.read(path).unwrap(), content, "{path} {round}");
        }
    }
    let list = sandbox.run(&["ls", "m.tar", "model"]).ok();
    assert_eq!(list.text(), "config.json\n");
    sandbox.run(&["inspect", "m.tar"]).ok();
}

#[test]
fn l16_what_is_no_directory_of_one_file_is_refused() {
    let link = |flag: u8| Header::file("model/link", 0).kind(flag).link("config.json");
    let model = || Tar::new().file("model/config.json", b"{}");
    let long = format!("model/{}", "x".repeat(256));
    for (why, tar) in [
        ("is not below", directory("model", "config.json", b"{}")),
        ("is not below", directory("model", "models/a", b"{}")),
        ("is not below", directory("model", "../model/a", b"{}")),
        ("..", directory("model", "model/../../a", b"{}")),
        ("", directory("model", "model/\x1b[2J", b"{}")),
        ("", directory("model", "model//a", b"{}")),
        ("255", Tar::new().pax("path", &long).file("m", b"{}").end()),
        (
            "no file",
            Tar::new()
                .entry(Header::file("model/", 0).kind(b'5'), &[])
                .end(),
        ),
        // Behind the first, which is all that is looked at before the pass.
        ("not the manifest's", model().file("model/b", b"{}").end()),
        (
            "several files",
            model().file("model/config.json", b"[]").end(),
        ),
        ("is a link", model().entry(link(b'2'), &[]).end()),
        ("is a link", Tar::new().entry(link(b'2'), &[]).end()),
        ("is a link", model().entry(link(b'1'), &[]).end()),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("m.tar", pushed(&[("model", &tar)]).to_bytes());
        sandbox.run(&["unpack", "m.tar", "out"]).refused(3, why);
        let (mounted, run) = Mounted::attempt(&sandbox, "m.tar");
        assert!(mounted.is_none());
        run.refused(3, why);
    }
}

/// Its name cannot be believed.
#[test]
fn l16_a_damaged_directory_is_refused() {
    let sandbox = Sandbox::new();
    let tar = directory("model", "model/config.json", &[b'x'; 5000]);
    let mut layout = pushed(&[("model", &tar)]);
    let length = gzip(&tar).len();
    let name = layout.layer_name(0);
    let other = gzip(&directory("model", "model/confih.json", &[b'x'; 5000]));
    assert_eq!(length, other.len(), "for the sizes to agree");
    layout.damage(&name, |bytes| *bytes = other);
    sandbox.write("m.tar", layout.to_bytes());
    sandbox.run(&["unpack", "m.tar", "out"]).refused(1, "model");
    let (mounted, run) = Mounted::attempt(&sandbox, "m.tar");
    assert!(mounted.is_none(), "{}", run.stderr);
    for at in 0..length {
        let mut layout = pushed(&[("model", &tar)]);
        layout.damage(&name, |bytes| bytes[at] ^= 1);
        sandbox.write("m.tar", layout.to_bytes());
        let done = sandbox.run(&["ls", "m.tar"]);
        assert_eq!(done.code, Some(1), "byte {at}: {}", done.stderr);
    }
}

/// Read once, or it would take as long as the manifest likes.
#[test]
fn l16_one_layer_that_many_descriptors_call_a_directory_is_read_once() {
    let sandbox = Sandbox::new();
    let tar = directory("model", "model/large", &vec![0; 64 << 20]);
    let mut layout = pushed(&[("model", &tar)]);
    layout.edit_manifest(|manifest| {
        let layers = manifest["layers"].as_array_mut().unwrap();
        let layer = layers[0].clone();
        layers.resize(5_000, layer);
    });
    sandbox.write("m.tar", layout.to_bytes());
    sandbox.run(&["ls", "m.tar"]).refused(3, "model/large");
}
