//! Artifacts of every system that `docs/systems.md` names, as its tools lay them out and not as `pack`
//! does: what `inspect` says of them, and what `unpack` and a mount have of their files.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use modeloci_test_support::compressed::gzip;
use modeloci_test_support::forge::{Header, Layout, Tar, descriptor};
use modeloci_test_support::random::noise;
use modeloci_test_support::run::Run;
use modeloci_test_support::workspace::{Workspace, available, files_below, has, shell};
use serde_json::{Value, json};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const FILEPATH: &str = "org.cncf.model.filepath";
/// The time of members.
const TIME: i64 = 1_700_000_000;

/// An artifact: a config, and layers of a media type with annotations.
struct Artifact {
    layout: Layout,
}

impl Artifact {
    fn new(config_type: &str, config: &Value) -> Artifact {
        let mut layout = Layout::of_layers([]);
        layout.remove("config.json");
        let config = serde_json::to_vec(config).unwrap();
        layout.add_blob(&config);
        layout.edit_manifest(|manifest| {
            manifest["config"] = descriptor(config_type, &config);
        });
        Artifact { layout }
    }

    fn of_type(mut self, artifact_type: &str) -> Artifact {
        self.layout
            .edit_manifest(|manifest| manifest["artifactType"] = json!(artifact_type));
        self
    }

    fn layer(self, media_type: &str, blob: &[u8]) -> Artifact {
        self.annotated(media_type, blob, &[])
    }

    fn annotated(
        mut self,
        media_type: &str,
        blob: &[u8],
        annotations: &[(&str, &str)],
    ) -> Artifact {
        self.layout.add_blob(blob);
        self.layout.edit_manifest(|manifest| {
            let mut layer = descriptor(media_type, blob);
            if !annotations.is_empty() {
                let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
                layer["annotations"] = json!(annotations);
            }
            manifest["layers"].as_array_mut().unwrap().push(layer);
        });
        self
    }
}

/// A tar of members: `d/` is a directory, `s -> t` a symbolic link, `h => t` a hard link, all else a file
/// of its own bytes.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Tar::new();
    for (name, data) in members {
        let header = if let Some((path, target)) = name.split_once(" -> ") {
            Header::file(path, 0).kind(b'2').link(target)
        } else if let Some((path, target)) = name.split_once(" => ") {
            Header::file(path, 0).kind(b'1').link(target)
        } else if name.ends_with('/') {
            Header::file(name, 0).kind(b'5')
        } else {
            Header::file(name, data.len() as u64)
        };
        let header = header.put(136, format!("{TIME:011o}").as_bytes());
        tar = tar.entry(header, data);
    }
    tar.end()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(list: &[(&str, &[u8])]) -> Files {
    let owned = list
        .iter()
        .map(|(path, data)| (path.to_string(), data.to_vec()));
    owned.collect()
}

fn read_all(root: &Path) -> Files {
    let all = files_below(root).into_iter();
    all.map(|(path, file)| (path, fs::read(file).unwrap()))
        .collect()
}

/// Asserts what `inspect`, `unpack` and two mounts in turn have of an artifact; the second has what the
/// first has kept. Returns what `inspect --json` says.
#[track_caller]
fn assert_holds(artifact: &Artifact, options: &[&str], system: &str, expected: &Files) -> Value {
    let workspace = Workspace::new();
    let archive = workspace.write("a.tar", artifact.layout.to_bytes());
    let archive = archive.to_str().unwrap();
    let run = |args: &[&str]| Run::of(&mut workspace.modeloci(args));

    let mut inspect = vec!["inspect", archive, "--json"];
    inspect.extend(options);
    let document = run(&inspect).ok().json();
    assert_eq!(document["system"], system);
    assert_eq!(document["verified"], true);
    let paths = document["layers"].as_array().unwrap().iter();
    let paths: Vec<&str> = paths.map(|layer| layer["path"].as_str().unwrap()).collect();
    assert_eq!(paths, expected.keys().collect::<Vec<_>>());

    let output = workspace.path("unpacked");
    let mut unpack = vec!["unpack", archive, output.to_str().unwrap()];
    unpack.extend(options);
    run(&unpack).ok();
    assert!(read_all(&output) == *expected, "unpacked");

    for time in ["first", "second"] {
        let mounted = workspace.mount_with(Path::new(archive), options);
        assert!(read_all(&mounted.0) == *expected, "the {time} mount");
    }
    document
}

#[test]
fn images_are_read_layer_over_layer() {
    let large = noise(1, 5 << 20);
    let lower = tar(&[
        ("etc/", b""),
        ("etc/passwd", b"root"),
        ("models/", b""),
        ("models/weights.bin", &large),
        ("models/old", b"old"),
        ("models/sub/", b""),
        ("models/sub/x", b"x"),
    ]);
    let upper = tar(&[
        ("models/.wh.old", b""),
        ("models/config.json", b"{}"),
        ("models/link -> sub/x", b""),
        ("models/dir -> /models/sub", b""),
        ("models/hard => models/config.json", b""),
        ("models/empty/", b""),
    ]);
    let labels = json!({"org.opencontainers.image.title": "llama",
        "org.opencontainers.image.version": "2", "org.opencontainers.image.licenses": "MIT"});
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let expected = files(&[
        ("config.json", b"{}"),
        ("dir/x", b"x"),
        ("hard", b"{}"),
        ("link", b"x"),
        ("sub/x", b"x"),
        ("weights.bin", &large),
    ]);
    type Pack = fn(&[u8]) -> Vec<u8>;
    let packs: [(&str, Pack); 4] = [
        (TAR, |bytes| bytes.to_vec()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", |bytes| {
            gzip(bytes, 6)
        }),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            |bytes| gzip(bytes, 1),
        ),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd),
    ];
    for (media_type, pack) in packs {
        let artifact = Artifact::new(IMAGE, &config)
            .layer(media_type, &pack(&lower))
            .layer(media_type, &pack(&upper));
        let document = assert_holds(&artifact, &[], "image", &expected);
        assert_eq!(document["about"]["name"], "llama");
        assert_eq!(document["about"]["license"], "MIT");
    }
    let artifact = Artifact::new(IMAGE, &config)
        .layer(TAR, &lower)
        .layer(TAR, &upper);
    let root: Files = expected
        .iter()
        .map(|(path, data)| (format!("models/{path}"), data.clone()))
        .chain([("etc/passwd".to_string(), b"root".to_vec())])
        .collect();
    assert_holds(&artifact, &["--root"], "image", &root);
    let etc = files(&[("passwd", b"root")]);
    assert_holds(&artifact, &["--prefix", "/etc/"], "image", &etc);

    // Directories with nothing in them are there, and members have the times of their headers.
    let workspace = Workspace::new();
    let archive = workspace.write("a.tar", artifact.layout.to_bytes());
    let mounted = workspace.mount(&archive);
    assert!(mounted.0.join("empty").read_dir().unwrap().next().is_none());
    assert_eq!(mounted.0.join("sub/x").metadata().unwrap().mtime(), TIME);
    let output = workspace.path("unpacked");
    Run::of(&mut workspace.modeloci(&["unpack".as_ref(), archive.as_os_str(), output.as_os_str()]))
        .ok();
    assert!(output.join("empty").is_dir());
    let missing = [
        "inspect".as_ref(),
        archive.as_os_str(),
        "--prefix=gone".as_ref(),
    ];
    Run::of(&mut workspace.modeloci(&missing)).fails(2, &["--prefix", "gone"]);
}

#[test]
fn directories_of_oras_keep_their_names() {
    let unpack = ("io.deis.oras.content.unpack", "true");
    let several = tar(&[
        ("model/", b""),
        ("model/a", b"1"),
        ("model/b/", b""),
        ("model/b/c", b"2"),
    ]);
    let alone = tar(&[("one/", b""), ("one/one", b"3")]);
    let artifact = Artifact::new(EMPTY, &json!({}))
        .of_type("application/vnd.unknown.artifact.v1")
        .annotated(
            &format!("{TAR}+gzip"),
            &gzip(&several, 6),
            &[(TITLE, "model"), unpack],
        )
        .annotated(
            &format!("{TAR}+gzip"),
            &gzip(&alone, 6),
            &[(TITLE, "one"), unpack],
        )
        .annotated(TAR, b"raw bytes", &[(TITLE, "file.bin")]);
    let expected = files(&[
        ("file.bin", b"raw bytes"),
        ("model/a", b"1"),
        ("model/b/c", b"2"),
        ("one/one", b"3"),
    ]);
    assert_holds(&artifact, &[], "artifact", &expected);
}

#[test]
fn kits_have_paths_from_their_root_and_old_ones_from_the_kitfile() {
    let kit = |what: &str, pack: &str| format!("application/vnd.kitops.modelkit.{what}.v1.{pack}");
    let kitfile = json!({"manifestVersion": "1.0.0",
        "package": {"name": "titanic", "version": "1.2", "license": "Apache-2.0"},
        "model": {"name": "m", "path": "./models/llama", "framework": "safetensors",
            "parts": [{"path": "parts/p.bin"}]},
        "code": [{"path": "src/"}], "datasets": [{"path": "data/d.csv"}], "docs": [{"path": "."}]});
    let code = tar(&[("src/", b""), ("src/train.py", b"code")]);
    let docs = tar(&[("README.md", b"docs")]);
    let data = tar(&[("data/", b""), ("data/d.csv", b"1,2")]);
    let parts = tar(&[("parts/", b""), ("parts/p.bin", b"part")]);
    let new = tar(&[
        ("models/", b""),
        ("models/llama/", b""),
        ("models/llama/w", b"w"),
    ]);
    let old = tar(&[("w", b"w")]);
    let expected = files(&[
        ("README.md", b"docs"),
        ("data/d.csv", b"1,2"),
        ("models/llama/w", b"w"),
        ("parts/p.bin", b"part"),
        ("src/train.py", b"code"),
    ]);
    for model in [new, old] {
        let config = "application/vnd.kitops.modelkit.config.v1+json";
        let artifact = Artifact::new(config, &kitfile)
            .layer(&kit("model", "tar+gzip"), &gzip(&model, 6))
            .layer(&kit("modelpart", "tar"), &parts)
            .layer(&kit("code", "tar+zstd"), &zstd(&code))
            .layer(&kit("dataset", "tar"), &data)
            .layer(&kit("docs", "tar"), &docs);
        let document = assert_holds(&artifact, &[], "kitops", &expected);
        assert_eq!(document["about"]["name"], "titanic");
        assert_eq!(document["about"]["framework"], "safetensors");
        assert_eq!(document["about"]["license"], "Apache-2.0");
    }
}

#[test]
fn modelpack_has_files_directories_and_categories() {
    let layer = |what: &str, pack: &str| format!("application/vnd.cncf.model.{what}.v1.{pack}");
    let metadata = json!({"name": "w.bin", "mode": 0o755, "mtime": "2001-09-09T01:46:40Z"});
    let metadata = metadata.to_string();
    let config = json!({"descriptor": {"name": "llama", "version": "3", "licenses": ["MIT", "X11"]},
        "config": {"format": "gguf", "architecture": "transformer"},
        "modelfs": {"type": "layers", "diffIds": []}});
    let directory = tar(&[
        ("notes/", b""),
        ("notes/a.txt", b"a"),
        ("notes/b.txt", b"b"),
    ]);
    let one = tar(&[("w.bin", b"weights")]);
    let code = tar(&[("src/run.py", b"run"), ("setup.py", b"setup")]);
    let artifact = Artifact::new("application/vnd.cncf.model.config.v1+json", &config)
        .of_type("application/vnd.cncf.model.manifest.v1+json")
        .annotated(&layer("weight", "raw"), b"raw", &[(FILEPATH, "raw.bin")])
        .annotated(
            &layer("weight", "tar"),
            &one,
            &[
                (FILEPATH, "deep/w.bin"),
                ("org.cncf.model.file.metadata+json", &metadata),
            ],
        )
        .annotated(
            &layer("doc", "tar+gzip"),
            &gzip(&directory, 6),
            &[(FILEPATH, "notes")],
        )
        .annotated(
            &layer("code", "tar+zstd"),
            &zstd(&code),
            &[(FILEPATH, "code")],
        );
    let expected = files(&[
        ("deep/w.bin", b"weights"),
        ("notes/a.txt", b"a"),
        ("notes/b.txt", b"b"),
        ("raw.bin", b"raw"),
        ("setup.py", b"setup"),
        ("src/run.py", b"run"),
    ]);
    let document = assert_holds(&artifact, &[], "modelpack", &expected);
    assert_eq!(document["about"]["name"], "llama");
    assert_eq!(document["about"]["license"], "MIT, X11");
    let workspace = Workspace::new();
    let archive = workspace.write("a.tar", artifact.layout.to_bytes());
    let mounted = workspace.mount(&archive);
    let weights = mounted.0.join("deep/w.bin").metadata().unwrap();
    assert_eq!(
        (weights.permissions().mode() & 0o777, weights.mtime()),
        (0o555, 1_000_000_000)
    );
}

#[test]
fn docker_model_runner_has_archives_beside_its_files() {
    let docker = |what: &str| format!("application/vnd.docker.ai.{what}");
    let config = json!({"config": {"format": "gguf", "architecture": "llama"}});
    let vllm = tar(&[("config.json", b"{}"), ("tokenizer.json", b"[]")]);
    let artifact = Artifact::new("application/vnd.docker.ai.model.config.v0.1+json", &config)
        .layer(&docker("gguf.v3"), b"GGUF")
        .layer(&docker("vllm.config.tar"), &vllm);
    let expected = files(&[
        ("config.json", b"{}"),
        ("model.gguf", b"GGUF"),
        ("tokenizer.json", b"[]"),
    ]);
    let document = assert_holds(&artifact, &[], "docker", &expected);
    assert_eq!(document["about"]["framework"], "gguf");
}

#[test]
fn ollama_has_names_for_its_types_and_tensors_their_own() {
    let ollama = |what: &str| format!("application/vnd.ollama.image.{what}");
    let config = json!({"model_format": "gguf", "model_family": "llama"});
    let mut artifact = Artifact::new("application/vnd.docker.container.image.v1+json", &config)
        .layer(&ollama("model"), b"GGUF")
        .layer(&ollama("license"), b"one")
        .layer(&ollama("license"), b"two")
        .layer(&ollama("params"), b"{\"stop\": []}")
        .layer(&ollama("tensor"), b"tensor");
    artifact
        .layout
        .edit_manifest(|manifest| manifest["layers"][4]["name"] = json!("blk.0/weight"));
    let expected = files(&[
        ("LICENSE-00001-of-00002", b"one"),
        ("LICENSE-00002-of-00002", b"two"),
        ("blk.0/weight", b"tensor"),
        ("model.gguf", b"GGUF"),
        ("params.json", b"{\"stop\": []}"),
    ]);
    let document = assert_holds(&artifact, &[], "ollama", &expected);
    assert_eq!(document["about"]["architecture"], "llama");
}

#[test]
fn one_archive_of_all_files_is_opened() {
    let all = tar(&[("./", b""), ("./a/b", b"1"), ("./c", b"2")]);
    let artifact = Artifact::new(EMPTY, &json!({}))
        .of_type("application/vnd.unknown.artifact.v1")
        .annotated(TAR, &gzip(&all, 6), &[(TITLE, "allfiles.tar.gz")]);
    let expected = files(&[("a/b", b"1"), ("c", b"2")]);
    assert_holds(&artifact, &[], "artifact", &expected);
}

/// Of a layer whose names are its own, nothing is shown that was not verified.
#[test]
fn l20_a_damaged_layer_of_several_files_shows_none_of_them() {
    let image = tar(&[
        ("models/", b""),
        ("models/a", b"content of a"),
        ("models/b", b"b"),
    ]);
    for pack in [
        |bytes: &[u8]| bytes.to_vec(),
        |bytes: &[u8]| gzip(bytes, 6),
        zstd,
    ] {
        let blob = pack(&image);
        let honest = Artifact::new(IMAGE, &json!({})).layer(TAR, &blob);
        let name = honest.layout.layer_name(0);
        for at in (0..blob.len()).step_by(blob.len() / 40 + 1) {
            let mut layout = honest.layout.clone();
            layout.damage(&name, |bytes| bytes[at] ^= 1);
            let workspace = Workspace::new();
            let archive = workspace.write("a.tar", layout.to_bytes());
            let args = ["ls".as_ref(), archive.as_os_str()];
            let run = Run::of(&mut workspace.modeloci(&args));
            run.fails(1, &["layer 0 (sha256:"]);
        }
    }
}

/// Wherever a layer is damaged that the manifest gives a path: the other files are what they were, whatever
/// the damage makes it look like.
#[test]
fn l20_a_damaged_layer_with_a_path_costs_no_other_file() {
    let one = tar(&[("w.bin", &noise(5, 3_000))]);
    for pack in [
        |bytes: &[u8]| bytes.to_vec(),
        |bytes: &[u8]| gzip(bytes, 6),
        zstd,
    ] {
        let blob = pack(&one);
        let honest = Artifact::new("application/vnd.cncf.model.config.v1+json", &json!({}))
            .annotated(
                "application/vnd.cncf.model.weight.v1.tar",
                &blob,
                &[(FILEPATH, "w.bin")],
            )
            .annotated(
                "application/vnd.cncf.model.doc.v1.raw",
                b"other",
                &[(FILEPATH, "other")],
            );
        let name = honest.layout.layer_name(0);
        let ends = (blob.len() - 8..blob.len()).chain(0..20);
        for at in ends.chain((20..blob.len()).step_by(blob.len() / 20 + 1)) {
            let mut layout = honest.layout.clone();
            layout.damage(&name, |bytes| bytes[at] ^= 1);
            let workspace = Workspace::new();
            let archive = workspace.write("a.tar", layout.to_bytes());
            let archive = archive.to_str().unwrap();
            let run = Run::of(&mut workspace.modeloci(&["cat", archive, "other"])).ok();
            assert_eq!(run.text(), "other", "{at}");
            Run::of(&mut workspace.modeloci(&["cat", archive, "w.bin"])).fails(1, &["w.bin"]);
        }
    }
}

#[test]
fn l19_a_layer_of_several_files_has_an_end() {
    // Zeros compress a thousandfold: 3 GiB in 3 MB.
    let size = 3u64 << 30;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let header = Header::file("models/zeros", size).seal();
    std::io::Write::write_all(&mut encoder, &header).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..4 {
        std::io::Write::write_all(&mut encoder, &piece).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let artifact = Artifact::new(IMAGE, &json!({})).layer(TAR, &blob);
    let workspace = Workspace::new();
    let archive = workspace.write("a.tar", artifact.layout.to_bytes());
    let args = ["ls".as_ref(), archive.as_os_str()];
    Run::of(&mut workspace.modeloci(&args)).fails(3, &["expand to", "the limit is"]);
}

/// What is a directory is one whatever packs it, and however it is called.
#[test]
fn directories_with_a_file_of_their_name_are_directories() {
    let two = tar(&[("model/model", b"one"), ("model/tiny", b"two")]);
    let one = tar(&[("model/", b""), ("model/model", b"one")]);
    let large = tar(&[
        ("model/model", &noise(7, 100_000)),
        ("model/more", &noise(8, 200_000)),
    ]);
    let skipped = [
        &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..],
        &zstd(&one),
    ]
    .concat();
    for (blob, expected) in [
        (two.clone(), &["model/model", "model/tiny"][..]),
        (gzip(&two, 6), &["model/model", "model/tiny"]),
        (zstd(&two), &["model/model", "model/tiny"]),
        (one.clone(), &["model/model"]),
        (gzip(&one, 6), &["model/model"]),
        (skipped, &["model/model"]),
        (gzip(&large, 6), &["model/model", "model/more"]),
        (
            zstd::bulk::compress(&large, 3).unwrap(),
            &["model/model", "model/more"],
        ),
    ] {
        let artifact = Artifact::new("application/vnd.cncf.model.config.v1+json", &json!({}))
            .annotated(
                "application/vnd.cncf.model.weight.v1.tar+zstd",
                &blob,
                &[(FILEPATH, "model")],
            );
        let workspace = Workspace::new();
        let archive = workspace.write("a.tar", artifact.layout.to_bytes());
        let mounted = workspace.mount(&archive);
        let found: Vec<String> = read_all(&mounted.0).into_keys().collect();
        assert_eq!(found, expected);
    }
}

/// umoci writes neither the padding behind a layer's last file nor the end of the tar.
#[test]
fn images_that_umoci_makes_are_what_it_unpacks() {
    if !available("umoci", has("umoci")) {
        return;
    }
    let workspace = Workspace::new();
    let script = "
        cd \"$1\"; mkdir -p a/models/sub a/etc b/models/sub c
        head -c 3000000 /dev/urandom >a/models/w.bin; echo x >a/models/sub/x; echo e >a/etc/e
        ln -s sub/x a/models/link; ln a/models/w.bin a/models/hard; ln -s /models/sub a/models/dir
        echo new >b/models/new; echo other >b/models/sub/y; echo last >c/z
        umoci init --layout l; umoci new --image l:v1
        umoci insert --rootless --image l:v1 a /
        umoci insert --rootless --image l:v1 b /
        umoci insert --rootless --image l:v1 --whiteout /models/hard
        umoci insert --rootless --image l:v1 --opaque c /models/opaque
        umoci unpack --rootless --image l:v1 bundle
        rm bundle/rootfs/models/dir";
    shell(script, &[workspace.root()]);
    let expected = workspace.path("bundle/rootfs");
    let layout = workspace.path("l");
    for (options, below, models) in [(&[][..], "models", ""), (&["--root"], "", "models/")] {
        let mounted = workspace.mount_with(&layout, options);
        let mut wanted = read_all(&expected.join(below));
        // The link that counts from the image's root, where it would lead elsewhere on this machine.
        for (name, file) in [("dir/x", "sub/x"), ("dir/y", "sub/y")] {
            let bytes = fs::read(expected.join("models").join(file)).unwrap();
            wanted.insert(format!("{models}{name}"), bytes);
        }
        assert!(read_all(&mounted.0) == wanted, "{below}");
    }
}

#[test]
fn l21_a_list_of_names_that_memory_has_no_room_for_is_refused() {
    let mut list = Tar::new();
    for n in 0..40_000 {
        let name = format!("{}/{n:099}", "d".repeat(90));
        list = list.file(name, b"");
    }
    let artifact = Artifact::new(IMAGE, &json!({})).layer(TAR, &gzip(&list.end(), 1));
    let workspace = Workspace::new();
    let archive = workspace.write("a.tar", artifact.layout.to_bytes());
    let archive = archive.to_str().unwrap();
    let mountpoint = workspace.path("small");
    fs::create_dir(&mountpoint).unwrap();
    let small = [
        "mount",
        "--cache-size=16MiB",
        archive,
        mountpoint.to_str().unwrap(),
    ];
    Run::of(&mut workspace.modeloci(&small)).fails(5, &["list of files", "--cache-size"]);
    let mounted = workspace.mount(Path::new(archive));
    let below = mounted.0.join("d".repeat(90));
    assert_eq!(below.read_dir().unwrap().count(), 40_000);
}
