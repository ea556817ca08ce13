//! d: digests, and the blobs that they name.

use serde_json::json;

use crate::forge::{BLOCK, Header, Layout, Random, TAR_GZIP, descriptor, layer, sample_files};
use crate::mounted::Mounted;
use crate::sandbox::Sandbox;

#[track_caller]
fn refuses(layout: &Layout, words: &[&str]) {
    Sandbox::new().refuses(layout.to_bytes(), 3, words);
}

const BAD: [&str; 12] = [
    "",
    "sha256",
    "sha256:",
    "sha256:../../x",
    "sha256:../../../../../../../../../../../../../../../../etc/passwd0000000",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
    "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    " sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

#[test]
fn d1_digests_that_are_none() {
    for bad in BAD {
        let mut layout = Layout::sample();
        layout.edit_manifest(|m| m["layers"][1]["digest"] = json!(bad));
        refuses(&layout, &["layers[1].digest", "is no digest", bad]);
        let mut layout = Layout::sample();
        layout.edit_manifest(|m| m["config"]["digest"] = json!(bad));
        refuses(&layout, &["config.digest", "is no digest", bad]);
        let mut layout = Layout::sample();
        layout.edit_index(|i| i["manifests"][0]["digest"] = json!(bad));
        refuses(&layout, &["index.json", "manifests[0].digest", bad]);
    }
}

#[test]
fn d1_blobs_that_no_digest_names() {
    for name in [
        "blobs/sha256/XYZ",
        "blobs/sha256/../../x",
        "blobs/md5/d41d8cd98f00b204e9800998ecf8427e",
        "blobs/sha256/E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "blobs/x",
    ] {
        let archive = Layout::sample().tar().file(name, b"").end();
        Sandbox::new().refuses(archive, 3, &["bad.tar", name]);
    }
}

#[test]
fn d1_a_bad_pin_is_wrong_usage() {
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", Layout::sample().to_bytes());
    sandbox.mkdir("mnt");
    for bad in BAD {
        for verb in [
            &["inspect", "a.tar"][..],
            &["unpack", "a.tar", "out"],
            &["mount", "a.tar", "mnt"],
        ] {
            let pin = format!("--digest={bad}");
            let args = [verb, &[&pin]].concat();
            sandbox.run_bounded(&args).fails(2, &["--digest"]);
        }
    }
    assert_eq!(sandbox.names(), ["a.tar", "mnt"]);
}

#[test]
fn d1_sha512_is_supported() {
    let mut layout = Layout::sample();
    let blob = layout.get(&layout.layer_name(0)).to_vec();
    layout.remove(&layout.layer_name(0));
    let digest = modeloci::Digest::of(modeloci::Algorithm::Sha512, &blob);
    layout.set(&digest.blob_path(), &blob[..]);
    layout.edit_manifest(|m| m["layers"][0]["digest"] = json!(digest.to_string()));
    Sandbox::new().accepts(layout.to_bytes(), &sample_files());
    layout.damage(&digest.blob_path(), |bytes| bytes[1000] ^= 1);
    let sandbox = Sandbox::new();
    sandbox.write("bad.tar", layout.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "bad.tar"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.sober().stderr.contains(&digest.to_string()));
}

#[test]
fn d2_another_manifest_than_the_pinned() {
    let sandbox = Sandbox::new();
    let layout = Layout::sample();
    let digest = layout.manifest_digest();
    sandbox.write("a.tar", layout.to_bytes());
    sandbox.mkdir("mnt");
    let other = format!("sha256:{}", "0".repeat(64));
    for args in [
        &["inspect", "--no-verify", "a.tar", "--digest", &other][..],
        &["inspect", "a.tar", "--digest", &other],
        &["unpack", "a.tar", "out", "--digest", &other],
        &["mount", "a.tar", "mnt", "--digest", &other],
        &["mount", "a.tar", "mnt", "-o", &format!("digest={other}")],
    ] {
        let words = ["manifest", &digest[..], &other, "pinned"];
        sandbox.run_bounded(args).fails(4, &words);
    }
    assert!(!crate::sandbox::is_mounted(&sandbox.path("mnt")));
    assert_eq!(sandbox.names(), ["a.tar", "mnt"]);
    // The pin decides before anything else is believed: the manifest is nonsense, too.
    let mut nonsense = Layout::sample();
    nonsense.set_manifest(b"nonsense".to_vec());
    sandbox.write("b.tar", nonsense.to_bytes());
    let run = sandbox.run_bounded(&["inspect", "b.tar", "--digest", &digest]);
    run.fails(4, &[&nonsense.manifest_digest(), &digest]);
    let pinned = ["inspect", "a.tar", "--digest", &digest];
    sandbox.run_bounded(&pinned).ok();
}

#[test]
fn d3_one_bit_flipped_in_a_layer() {
    let mut random = Random(3);
    let sample = Layout::sample();
    let name = sample.layer_name(0);
    let digest = sample.layer_digest(0);
    for _ in 0..6 {
        let mut layout = sample.clone();
        layout.damage(&name, |bytes| {
            // Behind the header, whose damage is another test's.
            let at = 100 + random.below(bytes.len() - 100);
            bytes[at] ^= 1 << random.below(8);
        });
        let sandbox = Sandbox::new();
        sandbox.write("bad.tar", layout.to_bytes());
        let run = sandbox.run_bounded(&["inspect", "bad.tar"]).sober();
        assert_eq!(run.code, Some(1));
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", run.stderr);
        assert!(lines[0].contains("a.bin") && lines[0].contains(&digest));
        assert!(lines[1].contains("1 of 3 layers failed"), "{}", lines[1]);
        let run = sandbox.run_bounded(&["unpack", "bad.tar", "out"]);
        run.fails(1, &["a.bin", &digest]);
        assert_eq!(sandbox.names(), ["bad.tar"]);

        let mounted = Mounted::new(&sandbox, "bad.tar");
        mounted.eio("a.bin");
        for (name, bytes) in &sample_files()[1..] {
            assert!(mounted.read(name).unwrap() == *bytes, "{name}");
        }
        mounted.logged("a.bin", &[&digest, "at 0"]);
        mounted.eio("a.bin");
    }
}

#[test]
fn d3_one_bit_flipped_in_manifest_or_config() {
    let sample = Layout::sample();
    let config = crate::forge::blob_name(sample.get("config.json"));
    let manifest = crate::forge::blob_name(sample.get("manifest.json"));
    for (name, what) in [(config, "config"), (manifest, "manifest")] {
        let digest = name.replace("blobs/", "").replace('/', ":");
        for at in [0, 40, 90] {
            let mut layout = sample.clone();
            layout.damage(&name, |bytes| bytes[at] ^= 4);
            Sandbox::new().refuses(layout.to_bytes(), 1, &[what, &digest]);
        }
    }
}

#[test]
fn d4_descriptor_and_entry_differ_in_size() {
    let sample = Layout::sample();
    let digest = sample.layer_digest(1);
    for by in [-1i64, 1, 511, 512] {
        let mut layout = sample.clone();
        layout.edit_manifest(|m| {
            let size = m["layers"][1]["size"].as_i64().unwrap();
            m["layers"][1]["size"] = json!(size + by);
        });
        refuses(&layout, &["dir/b.txt", &digest, "its descriptor says"]);
    }
    for by in [-1i64, 1] {
        let mut layout = sample.clone();
        layout.edit_index(|i| {
            let size = i["manifests"][0]["size"].as_i64().unwrap();
            i["manifests"][0]["size"] = json!(size + by);
        });
        refuses(&layout, &["manifest", &sample.manifest_digest(), "says"]);
    }
    // Before hashing: a blob of a terabyte, of which nothing is there.
    let sandbox = Sandbox::new();
    let mut layout = sample.clone();
    let name = layout.layer_name(1);
    layout.remove(&name);
    let mut bytes = layout.tar().0;
    let mut size = [0; 12];
    size[0] = 0x80;
    size[4..].copy_from_slice(&(1u64 << 40).to_be_bytes());
    bytes.extend_from_slice(&Header::file(&name, 0).put(124, &size).seal());
    let path = sandbox.write("bad.tar", &bytes);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    if file
        .set_len(bytes.len() as u64 + (1 << 40) + 2 * BLOCK as u64)
        .is_ok()
    {
        sandbox.refuses_path("bad.tar", 3, &["dir/b.txt", &digest, "1099511627776"]);
    }
}

#[test]
fn d5_a_blob_that_is_missing() {
    let sample = Layout::sample();
    for (name, what) in [
        (sample.layer_name(0), "a.bin"),
        (sample.layer_name(1), "dir/b.txt"),
        (crate::forge::blob_name(sample.get("config.json")), "config"),
        (
            crate::forge::blob_name(sample.get("manifest.json")),
            "manifest",
        ),
    ] {
        let mut layout = sample.clone();
        layout.remove(&name);
        let digest = name.replace("blobs/", "").replace('/', ":");
        refuses(&layout, &[what, &digest, "missing"]);
    }
}

#[test]
fn d6_one_digest_with_two_sizes() {
    let sample = Layout::sample();
    let digest = sample.layer_digest(0);
    let mut layout = sample.clone();
    layout.edit_manifest(|m| {
        let mut again = m["layers"][0].clone();
        again["size"] = json!(1);
        again["annotations"] = json!({"org.opencontainers.image.title": "other"});
        m["layers"].as_array_mut().unwrap().push(again);
    });
    refuses(&layout, &["manifest", &digest, "two sizes"]);
    let mut layout = sample.clone();
    layout.edit_index(|i| {
        let mut again = i["manifests"][0].clone();
        again["size"] = json!(1);
        i["manifests"].as_array_mut().unwrap().push(again);
    });
    refuses(
        &layout,
        &["index.json", &sample.manifest_digest(), "two sizes"],
    );
}

/// One blob under two names is no contradiction, where the layer's own name allows it.
#[test]
fn d6_one_blob_with_two_paths() {
    let blob = layer("same.bin", b"shared");
    let mut layout = Layout::of_layers([("a/same.bin", blob.clone())]);
    layout.edit_manifest(|m| {
        let mut again = descriptor(TAR_GZIP, &blob);
        again["annotations"] = json!({"org.opencontainers.image.title": "b/same.bin"});
        m["layers"].as_array_mut().unwrap().push(again);
    });
    let files = [
        ("a/same.bin", b"shared".to_vec()),
        ("b/same.bin", b"shared".to_vec()),
    ];
    Sandbox::new().accepts(layout.to_bytes(), &files);
}
