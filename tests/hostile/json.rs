//! j: the JSON documents.

use std::fs::OpenOptions;
use std::io::{Seek as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::forge::{BLOCK, CONFIG, Header, INDEX, Layout, MANIFEST, descriptor, sample_files};
use crate::sandbox::{Sandbox, finish};

#[track_caller]
fn refuses(layout: &Layout, words: &[&str]) {
    Sandbox::new().refuses(layout.to_bytes(), 3, words);
}

/// The sample with a changed manifest.
fn manifest(edit: impl FnOnce(&mut Value)) -> Layout {
    let mut layout = Layout::sample();
    layout.edit_manifest(edit);
    layout
}

/// The sample with another text for one of its documents, under true digests.
fn document(name: &str, text: &[u8]) -> Layout {
    let mut layout = Layout::sample();
    match name {
        "manifest" => layout.set_manifest(text.to_vec()),
        "config" => {
            layout.add_blob(text);
            layout.edit_manifest(|m| m["config"] = descriptor(CONFIG, text));
        }
        name => layout.set(name, text),
    }
    layout
}

const DOCUMENTS: [&str; 4] = ["manifest", "config", "index.json", "oci-layout"];

#[test]
fn j1_a_manifest_of_300_mb() {
    const SIZE: u64 = 300 << 20;
    let sandbox = Sandbox::new();
    for name in ["index.json", "manifest.json", "oci-layout"] {
        let mut layout = Layout::sample();
        layout.remove(name);
        let path = sandbox.write("bad.tar", layout.tar().0);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(&Header::file(name, SIZE).seal()).unwrap();
        // A hole: nothing of it may even be read.
        let end = file.stream_position().unwrap() + SIZE + 2 * BLOCK as u64;
        file.set_len(end).unwrap();
        for args in [&["inspect", "bad.tar"][..], &["unpack", "bad.tar", "out"]] {
            let words = ["bad.tar", name, "314572800 bytes", "limit"];
            finish(sandbox.limited("-v 262144", args)).fails(3, &words);
        }
    }
    // As a blob: its descriptor says so, too.
    let mut layout = Layout::sample();
    let digest = format!("sha256:{}", "0".repeat(64));
    layout.edit_index(|index| {
        index["manifests"] = json!([{"mediaType": MANIFEST, "digest": digest, "size": SIZE}]);
    });
    layout.remove("manifest.json");
    let path = sandbox.write("bad.tar", layout.tar().0);
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    let name = format!("blobs/{}", digest.replace(':', "/"));
    file.write_all(&Header::file(name, SIZE).seal()).unwrap();
    let end = file.stream_position().unwrap() + SIZE + 2 * BLOCK as u64;
    file.set_len(end).unwrap();
    let words = ["bad.tar", &digest, "314572800 bytes", "limit"];
    finish(sandbox.limited("-v 262144", &["inspect", "bad.tar"])).fails(3, &words);
    assert_eq!(sandbox.names(), ["bad.tar"]);
}

#[test]
fn j1_a_million_layers() {
    let many = |item: &str| {
        let layers = vec![item; 1_000_000].join(",");
        let text = format!("{{\"schemaVersion\":2,\"config\":{{}},\"layers\":[{layers}]}}");
        document("manifest", text.as_bytes())
    };
    refuses(&many("0"), &["manifest", "layers[0] is 0, not an object"]);
    refuses(&many("{}"), &["manifest", "layers[0].mediaType is missing"]);
    // Ten times what fits into the limit.
    let full = many("{\"mediaType\":\"\",\"digest\":\"\",\"size\":0}");
    refuses(&full, &["manifest", "bytes", "the limit is 16777216"]);
}

#[test]
fn j2_nesting_100_000_deep() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}0{}", open.repeat(100_000), close.repeat(100_000));
        for name in DOCUMENTS {
            let words = [name, "nested too deeply"];
            refuses(&document(name, deep.as_bytes()), &words);
        }
    }
}

#[test]
fn j3_what_two_parsers_read_differently() {
    let sample = Layout::sample();
    for name in DOCUMENTS {
        let text = match name {
            "manifest" => sample.get("manifest.json"),
            "config" => sample.get("config.json"),
            name => sample.get(name),
        };
        let text = std::str::from_utf8(text).unwrap();
        let twice = text.replacen('{', "{\"schemaVersion\":2,\"schemaVersion\":2,", 1);
        let nested = text.replacen('{', "{\"x\":[{\"a\":1,\"\\u0061\":2}],", 1);
        for (bytes, rule) in [
            (twice.into_bytes(), "twice"),
            (nested.into_bytes(), "twice"),
            (
                [b"\xef\xbb\xbf", text.as_bytes()].concat(),
                "byte-order mark",
            ),
            ([text, "{}"].concat().into_bytes(), "trailing"),
            ([text, "\0"].concat().into_bytes(), "trailing"),
            ([text.as_bytes(), b"\xff"].concat(), "UTF-8"),
            (
                [&text.as_bytes()[..1], b"\"\xc0\xaf\":1,"].concat(),
                "UTF-8",
            ),
            (Vec::new(), "JSON"),
            (text.as_bytes()[..text.len() - 1].to_vec(), "JSON"),
        ] {
            refuses(&document(name, &bytes), &[name, rule]);
        }
    }
    // Two spellings of one key are two keys to some.
    let both = manifest(|m| m["media_type"] = json!(MANIFEST));
    refuses(&both, &["manifest", "mediaType", "media_type"]);
}

#[test]
fn j4_layers_and_manifests_in_one_document() {
    let both = manifest(|m| m["manifests"] = json!([]));
    refuses(&both, &["manifest", "manifests", "only an index"]);
    let mut layout = Layout::sample();
    let layers = layout.manifest()["layers"].clone();
    layout.edit_index(|index| index["layers"] = layers);
    refuses(&layout, &["index.json", "layers", "only a manifest"]);
    let typed = manifest(|m| m["mediaType"] = json!(INDEX));
    refuses(&typed, &["manifest", "mediaType", "index"]);
    let mut layout = Layout::sample();
    layout.edit_index(|index| index["mediaType"] = json!(MANIFEST));
    refuses(&layout, &["index.json", "mediaType", "manifest"]);
}

#[test]
fn j5_sizes_that_no_blob_has() {
    let digest = Layout::sample().layer_digest(0);
    for (size, words) in [
        (json!(-1), ["layers[0].size", "whole number"]),
        (json!(5000.5), ["layers[0].size", "whole number"]),
        (json!(1e3), ["layers[0].size", "whole number"]),
        (json!("5000"), ["layers[0].size", "whole number"]),
        (json!(null), ["layers[0].size", "missing"]),
        (json!(u64::MAX), ["layers[0].size", "limit"]),
        (json!(1u64 << 63), ["layers[0].size", "limit"]),
        (
            json!(1_000_000_000_000u64),
            [&digest, "descriptor says 1000000000000"],
        ),
        (json!(0), [&digest, "descriptor says 0"]),
    ] {
        refuses(&manifest(|m| m["layers"][0]["size"] = size.clone()), &words);
        let words = words.map(|word| word.replace("layers[0]", "config"));
        let words = words.each_ref().map(String::as_str);
        let layout = manifest(|m| m["config"]["size"] = size);
        // The config has a digest of its own.
        refuses(
            &layout,
            &[
                if words[0] == digest {
                    "config"
                } else {
                    words[0]
                },
                words[1],
            ],
        );
    }
    // A number beyond what a JSON number can be in any parser.
    let text = String::from_utf8(Layout::sample().get("manifest.json").to_vec()).unwrap();
    let huge = text.replacen("\"size\":", "\"size\":1e400", 1);
    refuses(&document("manifest", huge.as_bytes()), &["manifest"]);
}

#[test]
fn j6_no_manifest() {
    let mut layout = Layout::sample();
    layout.remove("manifest.json");
    layout.edit_index(|index| index["manifests"] = json!([]));
    refuses(&layout, &["index.json", "names no manifest"]);
    layout.edit_index(|index| index["manifests"] = json!(null));
    refuses(&layout, &["index.json", "names no manifest"]);
    layout.remove("index.json");
    refuses(&layout, &["index.json", "missing", "manifest.json"]);
}

#[test]
fn j6_several_manifests_are_listed_and_one_can_be_chosen() {
    let mut layout = Layout::sample();
    let first = layout.manifest_digest();
    let mut other = layout.manifest();
    other["annotations"] = json!({"other": "model"});
    let other = serde_json::to_vec(&other).unwrap();
    layout.add_blob(&other);
    let second = crate::forge::digest(&other);
    layout.edit_index(|index| {
        let mut second = descriptor(MANIFEST, &other);
        second["annotations"] = json!({"org.opencontainers.image.ref.name": "v2\u{1b}[2J"});
        index["manifests"].as_array_mut().unwrap().push(second);
    });
    let sandbox = Sandbox::new();
    let words = ["index.json", "2 manifests", "--ref", &first, &second, "v2"];
    sandbox.refuses(layout.to_bytes(), 2, &words);
    sandbox.write("two.tar", layout.to_bytes());
    for digest in [&first, &second] {
        let run = sandbox.run_bounded(&["inspect", "two.tar", "--json", "--digest", digest]);
        assert_eq!(run.ok().json()["manifest_digest"], digest.as_str());
    }
    let name = "v2\u{1b}[2J";
    for rest in [&[][..], &["--no-verify"]] {
        let args = [&["inspect", "two.tar", "--json", "--ref", name], rest].concat();
        let run = sandbox.run_bounded(&args).ok();
        assert_eq!(run.json()["manifest_digest"], second.as_str());
    }
    sandbox
        .run_bounded(&["unpack", "two.tar", "out", "--ref", name])
        .ok();
    sandbox
        .run_bounded(&["inspect", "two.tar", "--ref", "v3"])
        .fails(2, &["--ref", "no manifest v3"]);
    let both = ["inspect", "two.tar", "--ref", name, "--digest", &first];
    sandbox.run_bounded(&both).fails(4, &[&second]);
    sandbox.mkdir("mnt");
    for args in [["--ref", name], ["-o", "ref=v2\u{1b}[2J"]] {
        let args = [&["mount", "two.tar", "mnt", "--no-index"][..], &args].concat();
        sandbox.run_bounded(&args).ok();
        let run = sandbox.run_bounded(&["status", "mnt", "--json"]).ok();
        assert_eq!(run.json()["manifest_digest"], second.as_str());
        sandbox.run_bounded(&["umount", "mnt"]).ok();
    }
}

#[test]
fn j6_an_index_that_leads_back_or_nowhere() {
    // An index cannot hold its own digest; one that claims to is damaged.
    let mut layout = Layout::sample();
    layout.remove("manifest.json");
    let claimed = format!("sha256:{}", "1".repeat(64));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests":
        [{"mediaType": INDEX, "digest": claimed, "size": 0}]});
    let mut bytes = serde_json::to_vec(&index).unwrap();
    let size = bytes.len() + 2;
    bytes = String::from_utf8(bytes)
        .unwrap()
        .replace("\"size\":0", &format!("\"size\":{size}"))
        .into_bytes();
    assert_eq!(bytes.len(), size);
    layout.set(
        &format!("blobs/{}", claimed.replace(':', "/")),
        bytes.clone(),
    );
    layout.set("index.json", bytes);
    Sandbox::new().refuses(layout.to_bytes(), 1, &["index", &claimed]);

    // A chain that is too long, and one index that is too wide.
    let mut layout = Layout::sample();
    layout.remove("manifest.json");
    for _ in 0..10 {
        let index = layout.get("index.json").to_vec();
        layout.add_blob(&index);
        layout.edit_index(|outer| outer["manifests"] = json!([descriptor(INDEX, &index)]));
    }
    refuses(&layout, &["index.json", "too deeply", "limit"]);
    let mut layout = Layout::sample();
    layout.edit_index(|index| {
        let one = index["manifests"][0].clone();
        index["manifests"] = Value::Array(vec![one; 1001]);
    });
    refuses(&layout, &["index.json", "1001 entries", "limit"]);
}

#[test]
fn j7_inline_data_that_is_not_the_blob() {
    for (data, rule) in [("e30=", "bytes"), ("****", "base64"), ("e30", "base64")] {
        let layout = manifest(|m| m["config"]["data"] = json!(data));
        refuses(&layout, &["config.data", rule]);
    }
    let mut layout = Layout::sample();
    let empty = json!({"mediaType": "application/octet-stream", "size": 2, "data": "e31=",
        "digest": crate::forge::digest(b"{}")});
    layout.edit_manifest(|m| m["config"] = empty.clone());
    refuses(&layout, &["config.data", "base64"]);
    layout.edit_manifest(|m| m["config"]["data"] = json!("W10="));
    refuses(&layout, &["config.data", "digest says"]);
}

#[test]
fn j8_urls_are_never_fetched() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/blob", listener.local_addr().unwrap());
    let mut layout = Layout::sample();
    layout.edit_manifest(|m| {
        m["layers"][0]["urls"] = json!([url]);
        m["config"]["urls"] = json!([url]);
    });
    layout.edit_index(|index| index["manifests"][0]["urls"] = json!([url]));
    Sandbox::new().accepts(layout.to_bytes(), &sample_files());
    let digest = layout.layer_digest(0);
    layout.remove(&layout.layer_name(0));
    refuses(&layout, &[&digest, "missing"]);
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn j9_a_root_manifest_that_differs() {
    let mut layout = Layout::sample();
    let named = layout.manifest_digest();
    let mut other = layout.manifest();
    other["layers"].as_array_mut().unwrap().pop();
    let other = serde_json::to_vec(&other).unwrap();
    layout.set("manifest.json", &other[..]);
    let words = [
        "manifest.json",
        "differs",
        &named,
        &crate::forge::digest(&other),
    ];
    refuses(&layout, &words);
    // White space is a difference, too: the digest counts.
    let mut layout = Layout::sample();
    layout.damage("manifest.json", |bytes| bytes.push(b'\n'));
    refuses(&layout, &["manifest.json", "differs"]);
}

#[test]
fn j0_values_of_every_wrong_type() {
    let wrong = [
        json!(null),
        json!(1),
        json!("x"),
        json!([1]),
        json!({"a": 1}),
    ];
    let sandbox = Sandbox::new();
    let mut layouts = Vec::new();
    for pointer in [
        "/schemaVersion",
        "/mediaType",
        "/config",
        "/config/mediaType",
        "/config/digest",
        "/layers",
        "/layers/0",
        "/layers/0/digest",
        "/layers/0/mediaType",
        "/layers/0/annotations",
        "/layers/0/annotations/org.opencontainers.image.title",
    ] {
        for value in &wrong {
            layouts.push(manifest(|m| {
                *m.pointer_mut(pointer).unwrap() = value.clone()
            }));
        }
    }
    for pointer in ["/manifests", "/manifests/0", "/manifests/0/digest"] {
        for value in &wrong {
            let mut layout = Layout::sample();
            layout.edit_index(|i| *i.pointer_mut(pointer).unwrap() = value.clone());
            layouts.push(layout);
        }
    }
    for layout in layouts {
        sandbox.write("any.tar", layout.to_bytes());
        let run = sandbox
            .run_bounded(&["inspect", "--no-verify", "any.tar"])
            .sober();
        // Some of them are optional, or names of their own.
        assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
        if run.code == Some(3) {
            run.one_error(&["any.tar"]);
        }
    }
}
