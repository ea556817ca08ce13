//! What is refused for what it is: unfinished downloads, and secrets.

use super::*;

/// No tensors, in the format of safetensors.
const EMPTY: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 5000000000\n";
const INDEX: &[u8] = br#"{"metadata": {"total_size": 8}, "weight_map": {
    "a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors", "c": "m-1-of-2.safetensors"}}"#;

/// What a directory with these files is refused for, without an option and with the other one; with
/// its own it is packed, and the reason is a warning.
#[track_caller]
fn refused(files: &[(&str, &[u8])], option: &str, expected: &str) {
    let dir = scratch(files);
    let allow = |incomplete: bool, secrets: bool| PackOptions {
        allow_incomplete: incomplete,
        allow_secrets: secrets,
        ..options()
    };
    let incomplete = option == "--allow-incomplete";
    for options in [options(), allow(!incomplete, incomplete)] {
        let text = problem(pack_in(dir.path(), &options));
        let end = format!("model: {expected}; {option} packs it nevertheless");
        assert!(text.ends_with(&end), "{text}");
        assert_eq!(listing(dir.path()), ["model"]);
    }
    let packed = pack_in(dir.path(), &allow(incomplete, !incomplete)).unwrap();
    assert_eq!(packed.warnings, [expected]);
    assert_eq!(packed.files, files.len() as u64);
}

#[test]
fn k16_incomplete_downloads() {
    for name in [
        "model.safetensors.incomplete",
        "sub/model.gguf.part",
        "model.bin.aria2",
    ] {
        let expected = format!("\"{name}\" is an incomplete download");
        refused(&[("a", b"1"), (name, b"")], "--allow-incomplete", &expected);
    }
}

#[test]
fn k16_a_git_lfs_pointer_in_the_place_of_a_file() {
    refused(
        &[("config.json", b"{}"), ("w/model.safetensors", POINTER)],
        "--allow-incomplete",
        "\"w/model.safetensors\" is a git-lfs pointer, not the file itself (\"git lfs pull\" \
         fetches it)",
    );
    // What speaks of pointers is none.
    let long = [POINTER, &[b' '; 1024]].concat();
    let dir = scratch(&[
        (
            "a",
            b"see version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        ),
        (
            "b",
            b"version https://git-lfs.github.com/spec/v1\nis a line\n",
        ),
        ("c", &long),
    ]);
    assert_eq!(pack_in(dir.path(), &options()).unwrap().warnings, [""; 0]);
}

#[test]
fn k16_a_shard_that_an_index_names_and_that_is_missing() {
    let index = "sub/m.safetensors.index.json";
    refused(
        &[(index, INDEX), ("sub/m-1-of-2.safetensors", EMPTY)],
        "--allow-incomplete",
        "\"sub/m-2-of-2.safetensors\" is missing, which \"sub/m.safetensors.index.json\" names",
    );
    refused(
        &[("x.index.json", br#"{"weight_map":{"a":"../out"}}"#)],
        "--allow-incomplete",
        "\"../out\" is missing, which \"x.index.json\" names",
    );
    let complete = scratch(&[
        (index, INDEX),
        ("sub/m-1-of-2.safetensors", EMPTY),
        ("sub/m-2-of-2.safetensors", EMPTY),
        ("dot.index.json", br#"{"weight_map":{"a":"./dot"}}"#),
        ("dot", b""),
        // Not an index of shards, whatever it is called.
        ("a.index.json", b"{}"),
        ("b.index.json", b"[1"),
        ("c.index.json", br#"{"weight_map": [1]}"#),
        ("d.index.json", b""),
    ]);
    let packed = pack_in(complete.path(), &options()).unwrap();
    assert_eq!(packed.warnings, [""; 0]);
}

#[test]
fn k17_what_looks_like_a_secret() {
    for (name, content, what) in [
        (".env", &b""[..], "a secret"),
        ("sub/.netrc", b"", "a secret"),
        ("id_rsa", b"", "a secret"),
        (
            "server.pem",
            b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\r\nx\n",
            "a private key",
        ),
        (
            "deploy",
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n",
            "a private key",
        ),
        ("token", b"hf_secret\n", "a token"),
        (
            "notes.txt",
            b"hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567\n",
            "a token",
        ),
    ] {
        let expected = format!("\"{name}\" looks like {what}");
        refused(&[("a", b"1"), (name, content)], "--allow-secrets", &expected);
    }
    // What is only like it: a certificate, a public key, a sample, a tokenizer.
    let dir = scratch(&[
        ("ca.pem", b"-----BEGIN CERTIFICATE-----\nx\n"),
        ("id_rsa.pub", b"ssh-rsa AAAA"),
        (".env.example", b"KEY="),
        ("tokens.txt", b"hello"),
        ("README.md", b"# Keys\n-----BEGIN PRIVATE KEY-----\n"),
    ]);
    assert_eq!(pack_in(dir.path(), &options()).unwrap().warnings, [""; 0]);
}

#[test]
fn k16_all_that_is_wrong_is_said_at_once() {
    let names: Vec<String> = (0..12).map(|n| format!("{n:02}.part")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    let dir = scratch(&files);
    let text = problem(pack_in(dir.path(), &options()));
    assert!(
        text.contains("\"09.part\" is an incomplete download, and 2 more; "),
        "{text}"
    );
    files.truncate(1);
    files.push((".env", b""));
    let dir = scratch(&files);
    let text = problem(pack_in(dir.path(), &options()));
    assert!(
        text.ends_with(
            "model: \".env\" looks like a secret, \"00.part\" is an incomplete download; \
             --allow-incomplete and --allow-secrets pack it nevertheless"
        ),
        "{text}"
    );
}
