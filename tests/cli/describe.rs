//! What `pack` says of a model: what its user says, and else what its files tell.

use std::fs;

use serde_json::{Value, json};

use super::documented::{assert_documented, fields};
use super::harness::{Run, Sandbox, names};

/// Files of a model, framework and architecture, and which files tell them.
type Case<'a> = (&'a [(&'a str, Vec<u8>)], &'a str, &'a str, &'a [&'a str]);
/// Files of a model, and what a warning says.
type Warned<'a> = (&'a [(&'a str, &'a [u8])], &'a [&'a str]);

const PACK: [&str; 7] = ["pack", "model", "--name", "m", "--version", "1", "--force"];

fn pack(sandbox: &Sandbox, more: &[&str]) -> Run {
    sandbox.run(&[&PACK[..], more].concat())
}

/// A file of safetensors with one tensor of so many bytes.
fn safetensors(metadata: &str, bytes: usize) -> Vec<u8> {
    let header = format!(
        "{{{metadata}\"w\":{{\"dtype\":\"U8\",\"shape\":[{bytes}],\"data_offsets\":[0,{bytes}]}}}}"
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + bytes, 7);
    file
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A GGUF file of one F32 tensor of 8 elements, behind values of every kind.
fn gguf(architecture: &str) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(1u64.to_le_bytes());
    file.extend(5u64.to_le_bytes());
    let mut pair = |key: &str, kind: u32, value: &[u8]| {
        file.extend(text(key));
        file.extend(kind.to_le_bytes());
        file.extend(value);
    };
    pair("a.number", 10, &9u64.to_le_bytes());
    pair("general.architecture", 8, &text(architecture));
    let mut tokens = 8u32.to_le_bytes().to_vec();
    tokens.extend(2u64.to_le_bytes());
    tokens.extend(text("one"));
    tokens.extend(text("two"));
    pair("tokenizer.tokens", 9, &tokens);
    let mut scores = 6u32.to_le_bytes().to_vec();
    scores.extend(2u64.to_le_bytes());
    scores.extend([0; 8]);
    pair("tokenizer.scores", 9, &scores);
    pair("general.alignment", 4, &64u32.to_le_bytes());
    file.extend(text("w"));
    file.extend(1u32.to_le_bytes());
    file.extend(8u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(64) + 32, 7);
    file
}

/// The beginning of a ZIP, and names as its directory has them.
fn zip(names: &[&str]) -> Vec<u8> {
    let mut file = b"PK\x03\x04".to_vec();
    file.extend([0; 22]);
    file.extend((names[0].len() as u16).to_le_bytes());
    file.extend([0; 2]);
    for name in names {
        file.extend(name.bytes());
    }
    file
}

/// Framework, architecture, and where both were found.
fn told(sandbox: &Sandbox, more: &[&str]) -> (String, String, Vec<String>) {
    let run = pack(sandbox, &[&["--json"], more].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let document = run.json();
    let found = document["found"].as_array().unwrap();
    for found in found {
        assert_documented(found, &fields(&["`found`"]));
    }
    let field = |name: &str| document["model"][name].as_str().unwrap().to_string();
    let path = |found: &Value| found["path"].as_str().unwrap().to_string();
    (
        field("framework"),
        field("architecture"),
        found.iter().map(path).collect(),
    )
}

#[test]
fn k20_framework_and_architecture_are_those_of_the_files() {
    let llama = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"}";
    let flavors = "artifact_path: model\nflavors:\n  python_function:\n    env: x\n  sklearn:\n    \
                   pickled_model: model.pkl\nrun_id: 1\n";
    let pt = "\"__metadata__\":{\"format\":\"pt\"},";
    let cases: &[Case<'_>] = &[
        (
            &[("weights.bin", vec![1, 2, 3])],
            "pytorch",
            "transformer",
            &[],
        ),
        (
            &[
                ("model.safetensors", safetensors(pt, 9)),
                ("config.json", llama.into()),
            ],
            "pytorch",
            "LlamaForCausalLM",
            &["model.safetensors", "config.json"],
        ),
        (
            &[("model.safetensors", safetensors("", 9))],
            "safetensors",
            "transformer",
            &["model.safetensors"],
        ),
        (
            &[
                ("model.safetensors", safetensors("", 9)),
                (
                    "config.json",
                    b"{\"model_type\":\"bert\",\"transformers_version\":\"5\"}".to_vec(),
                ),
            ],
            "pytorch",
            "bert",
            &["config.json", "config.json"],
        ),
        (
            &[("m.gguf", gguf("llama"))],
            "gguf",
            "llama",
            &["m.gguf", "m.gguf"],
        ),
        (
            &[("m.onnx", b"\x08\x07\x12".to_vec())],
            "onnx",
            "transformer",
            &["m.onnx"],
        ),
        (
            &[("1/saved_model.pb", b"\x08\x01".to_vec())],
            "tensorflow",
            "transformer",
            &["1/saved_model.pb"],
        ),
        (
            &[("m.pt", zip(&["m/constants.pkl", "m/code/x.py"]))],
            "pytorch",
            "transformer",
            &["m.pt"],
        ),
        (
            &[("m.joblib", b"\x78\x9c".to_vec())],
            "sklearn",
            "transformer",
            &["m.joblib"],
        ),
        (
            &[
                ("MLmodel", flavors.into()),
                ("model.pkl", b"\x80\x04.".to_vec()),
            ],
            "sklearn",
            "transformer",
            &["MLmodel"],
        ),
        (
            &[
                (
                    "model_index.json",
                    b"{\"_class_name\":\"FluxPipeline\"}".to_vec(),
                ),
                ("unet/m.safetensors", safetensors(pt, 1)),
            ],
            "pytorch",
            "FluxPipeline",
            &["unet/m.safetensors", "model_index.json"],
        ),
        // What is nearer to the root counts, and then what is loaded first.
        (
            &[
                ("onnx/m.onnx", b"\x08\x07\x12".to_vec()),
                ("tf_model.h5", vec![0]),
                ("z.safetensors", safetensors(pt, 1)),
            ],
            "pytorch",
            "transformer",
            &["z.safetensors"],
        ),
        // Names alone are not believed, nor words that cannot be shown.
        (
            &[
                ("a.onnx", b"text".to_vec()),
                ("b.gguf", b"text".to_vec()),
                ("c.bin", b"PK\x03\x04".to_vec()),
                ("config.json", "{\"architectures\":[\"\u{202e}x\"]}".into()),
            ],
            "pytorch",
            "transformer",
            &[],
        ),
    ];
    for (files, framework, architecture, paths) in cases {
        let sandbox = Sandbox::new();
        for (name, bytes) in *files {
            sandbox.write(&format!("model/{name}"), bytes);
        }
        let (found, of, from) = told(&sandbox, &[]);
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!((&*found, &*of), (*framework, *architecture), "{names:?}");
        assert_eq!(from, *paths, "{names:?}");

        // What the user says is so, whatever the files tell.
        let explicit = ["--framework", "ours", "--architecture", "own"];
        let (found, of, from) = told(&sandbox, &explicit);
        assert_eq!((&*found, &*of), ("ours", "own"), "{names:?}");
        assert!(from.is_empty(), "{names:?}");
    }
}

#[test]
fn k20_what_was_found_is_said() {
    let sandbox = Sandbox::new();
    sandbox.write("model/m.gguf", gguf("qwen3"));
    let run = pack(&sandbox, &[]).quiet();
    assert!(
        run.text().contains("\n  Framework   : gguf\n"),
        "{}",
        run.text()
    );
    let line = "\nFound:     framework gguf (m.gguf), architecture qwen3 (m.gguf)\n";
    assert!(run.text().contains(line), "{}", run.text());
    let listed = sandbox.run(&["inspect", "m-1.tar"]).quiet();
    assert!(
        listed.text().contains("\nArch     : qwen3\n"),
        "{}",
        listed.text()
    );
    // A stream's report is on stderr.
    let run = pack(&sandbox, &["-o", "-"]);
    assert!(run.stderr.contains(line.trim_start()), "{}", run.stderr);
}

#[test]
fn k21_weights_that_are_cut_off_and_pickles_are_warned_of() {
    let whole = safetensors("", 100);
    let longer = [&whole[..], b"more"].concat();
    let model = gguf("llama");
    let torch = || zip(&["archive/data.pkl", "archive/data/0"]);
    let old_torch = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19".to_vec();
    let incomplete = "it may be incomplete";
    let one = "\"a.bin\" is a pickle: whoever loads it runs the code in it";
    let cases: &[Warned<'_>] = &[
        (&[("a.safetensors", &whole), ("b.gguf", &model)], &[]),
        (
            &[("a.safetensors", &whole[..whole.len() - 1])],
            &["\"a.safetensors\" has ", incomplete],
        ),
        (
            &[("a.safetensors", &longer)],
            &["its header says", incomplete],
        ),
        (
            &[("a.safetensors", &whole[..20])],
            &["its header says", incomplete],
        ),
        (
            &[("a.safetensors", b"text")],
            &["has 4 bytes, which is no safetensors file"],
        ),
        (
            &[("a.safetensors", b"\x02\0\0\0\0\0\0\0[]")],
            &["a header that is not one of"],
        ),
        (
            &[("b.gguf", &model[..model.len() - 1])],
            &["\"b.gguf\" has ", "its header says"],
        ),
        (
            &[("b.gguf", &model[..150])],
            &["its header is longer", incomplete],
        ),
        (&[("a.bin", &torch())], &[one]),
        (&[("a.bin", &old_torch)], &[one]),
        (&[("a.bin", b"\x80\x04]q\0.")], &[one]),
        (&[("a.pt", &zip(&["m/data.pkl", "m/code/x.py"]))], &[]),
        (
            &[("a.pth", &torch()), ("b.pkl", b"\x80\x05.")],
            &["\"a.pth\", \"b.pkl\" are pickles: whoever loads them"],
        ),
    ];
    for (files, expected) in cases {
        let sandbox = Sandbox::new();
        for (name, bytes) in *files {
            sandbox.write(&format!("model/{name}"), bytes);
        }
        let run = pack(&sandbox, &["--json"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(
            run.stderr.lines().count(),
            usize::from(!expected.is_empty())
        );
        for text in *expected {
            assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
            assert!(
                run.json()["warnings"]
                    .to_string()
                    .contains(&text.replace('"', "\\\""))
            );
        }
        assert_eq!(
            sandbox.run(&["inspect", "m-1.tar", "--json"]).json()["verified"],
            true
        );
    }
}

#[test]
fn k22_annotations_are_the_users_and_the_cards() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write(
        "model/README.md",
        "---\nlicense: mit\ntags:\n- nlp\n- 'b c'\n---\n# Title\n",
    );
    let annotations = |more: &[&str]| {
        pack(&sandbox, more).quiet();
        let run = sandbox.run(&["inspect", "m-1.tar", "--json", "--no-verify"]);
        run.quiet().json()["annotations"].clone()
    };
    let licences = "org.opencontainers.image.licenses";
    assert_eq!(
        annotations(&[]),
        json!({ licences: "mit", "io.modeloci.tags": "nlp,b c" })
    );
    let own = format!("{licences}=Apache-2.0");
    let more = ["--annotation", "org.example.team=a=b", "--annotation", &own];
    let expected = json!({
        licences: "Apache-2.0",
        "io.modeloci.tags": "nlp,b c",
        "org.example.team": "a=b",
    });
    assert_eq!(annotations(&more), expected);
    // They stay when a layer is added.
    sandbox.write("extra", "x");
    sandbox.run(&["add-layer", "m-1.tar", "extra"]).quiet();
    let run = sandbox.run(&["inspect", "m-1.tar", "--json"]).quiet();
    assert_eq!(run.json()["annotations"], expected);
    fs::remove_file(sandbox.path("m-1.tar")).unwrap();

    for (annotation, why) in [
        (
            "org.opencontainers.image.created=2020-01-01T00:00:00Z",
            "SOURCE_DATE_EPOCH",
        ),
        (
            "org.opencontainers.image.title=x",
            "is written by pack itself",
        ),
        (
            "org.opencontainers.image.ref.name=x",
            "is written by pack itself",
        ),
        ("org.cncf.model.filepath=x", "is written by pack itself"),
        ("io.modeloci.chunks=x", "is written by pack itself"),
        ("=x", "is not a key"),
        ("a b=x", "white space"),
        ("a=\u{202e}", "reorders text"),
    ] {
        let run = pack(&sandbox, &["--annotation", annotation]).refused(2, why);
        assert!(run.stderr.contains("annotation"), "{}", run.stderr);
    }
    pack(&sandbox, &["--annotation", "a"]).refused(2, "is not KEY=VALUE");
    pack(&sandbox, &["--annotation", "a=1", "--annotation", "a=2"])
        .refused(2, "annotation \"a\" is given twice");
    assert_eq!(sandbox.names(), ["extra", "model"]);
}

#[test]
fn k12_metadata_may_be_in_a_file() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("meta.json", "{\n  \"task\": \"chat\"\n}\n");
    let run = pack(&sandbox, &["--metadata", "@meta.json", "--json"]).quiet();
    assert_eq!(run.json()["model"]["metadata"], json!({ "task": "chat" }));
    fs::remove_file(sandbox.path("m-1.tar")).unwrap();
    sandbox.write("bad.json", "{");
    let run = pack(&sandbox, &["--metadata", "@bad.json"]);
    run.refused(2, "bad.json: --metadata is invalid JSON: ");
    pack(&sandbox, &["--metadata", "@absent.json"]).refused(5, "cannot read absent.json");
    sandbox.write("large.json", vec![b' '; (4 << 20) + 1]);
    pack(&sandbox, &["--metadata", "@large.json"]).refused(2, "large.json has more than");
    assert_eq!(
        sandbox.names(),
        ["bad.json", "large.json", "meta.json", "model"]
    );
}

#[test]
fn k23_the_digest_goes_to_a_file() {
    let sandbox = Sandbox::new();
    sandbox.model();
    sandbox.write("digest", "old");
    let run = pack(&sandbox, &["--digestfile", "digest", "--json"]).quiet();
    let written = fs::read_to_string(sandbox.path("digest")).unwrap();
    assert_eq!(run.json()["manifest_digest"], written.as_str());
    sandbox
        .run(&["inspect", "m-1.tar", "--digest", &written])
        .quiet();
    pack(&sandbox, &["--digestfile", "/dev/null"]).quiet();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    // Of a stream, too.
    fs::remove_file(sandbox.path("digest")).unwrap();
    assert_eq!(
        pack(&sandbox, &["-o", "-", "--digestfile", "digest"]).code,
        Some(0)
    );
    assert_eq!(fs::read_to_string(sandbox.path("digest")).unwrap(), written);
    fs::remove_file(sandbox.path("m-1.tar")).unwrap();

    // A link is replaced; what it names stays as it was.
    sandbox.write("theirs", "theirs");
    std::os::unix::fs::symlink("theirs", sandbox.path("link")).unwrap();
    pack(&sandbox, &["--digestfile", "link"]).quiet();
    assert_eq!(fs::read_to_string(sandbox.path("link")).unwrap(), written);
    assert_eq!(
        fs::read_to_string(sandbox.path("theirs")).unwrap(),
        "theirs"
    );
    for name in ["m-1.tar", "link", "theirs"] {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    // The archive is no stream but by its own name for one.
    pack(&sandbox, &["-o", "/dev/stdout"]).refused(2, "/dev/stdout is a descriptor");

    // Found out before the work, and gone when that fails.
    let run = pack(&sandbox, &["--digestfile", "no/such/file"]);
    run.refused(5, "cannot write no/such/file");
    sandbox.write("model/.env", "SECRET=1");
    pack(&sandbox, &["--digestfile", "new"]).refused(1, ".env");
    assert_eq!(names(&sandbox.path("")), ["digest", "model"]);
}
