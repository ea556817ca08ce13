//! What a directory may hold, and how it is found.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;
use crate::entry_path::EntryPath;
use crate::model::{Model, OpenOptions};

fn titles_in(dir: &tempfile::TempDir) -> Vec<String> {
    pack_in(dir.path(), &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    written.titles().into_iter().map(String::from).collect()
}

#[test]
fn k4_special_files_are_refused_without_blocking() {
    let dir = scratch(&[("a", b"1")]);
    let fifo = model_of(&dir).join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let text = problem(pack_in(dir.path(), &options()));
    assert!(
        text.ends_with("model/pipe: is a FIFO; only files, directories and links can be packed")
    );

    fs::remove_file(&fifo).unwrap();
    let socket = model_of(&dir).join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(problem(pack_in(dir.path(), &options())).contains("model/socket: is a socket"));

    fs::remove_file(&socket).unwrap();
    // By way of a link from inside: a device cannot be made without privileges.
    symlink("/dev/zero", model_of(&dir).join("device")).unwrap();
    assert!(
        problem(pack_in(dir.path(), &options())).contains("model/device: is a symbolic link out")
    );
    assert_eq!(listing(dir.path()), ["model"]);
}

#[test]
fn k5_links_inside_stand_for_their_targets() {
    let dir = scratch(&[("real/a", b"A"), ("real/sub/b", b"B")]);
    let model = model_of(&dir);
    symlink("real/a", model.join("relative")).unwrap();
    symlink(
        fs::canonicalize(model.join("real/a")).unwrap(),
        model.join("absolute"),
    )
    .unwrap();
    symlink("../relative", model.join("real/chain")).unwrap();
    symlink("real/sub", model.join("directory")).unwrap();
    symlink("../model/real/a", model.join("out-and-in")).unwrap();
    assert_eq!(
        titles_in(&dir),
        [
            "absolute",
            "directory/b",
            "out-and-in",
            "real/a",
            "real/chain",
            "real/sub/b",
            "relative"
        ]
    );
    let written = Written::read(&dir.path().join("out.tar"));
    for layer in written.layers() {
        let title = layer["annotations"]["org.opencontainers.image.title"]
            .as_str()
            .unwrap();
        let content: &[u8] = if title.ends_with('b') { b"B" } else { b"A" };
        assert_eq!(
            layer["annotations"]["io.modeloci.file.digest"],
            Digest::sha256(content).to_string(),
            "{title}"
        );
    }
}

#[test]
fn k5_links_that_escape_dangle_or_circle_are_refused() {
    for (target, rule) in [
        (
            "../secret",
            "is a symbolic link out of the model directory, to ",
        ),
        (
            "/etc",
            "is a symbolic link out of the model directory, to /etc",
        ),
        ("nowhere", "is a symbolic link that leads nowhere"),
        ("a/below", "is a symbolic link that leads nowhere"),
        ("link", "is a symbolic link that leads in a circle"),
        (".", "is a symbolic link to a directory that contains it"),
    ] {
        let dir = scratch(&[("a", b"1")]);
        fs::write(dir.path().join("secret"), b"").unwrap();
        symlink(target, model_of(&dir).join("link")).unwrap();
        let text = problem(pack_in(dir.path(), &options()));
        assert!(
            text.contains(&format!("model/link: {rule}")),
            "{target}: {text}"
        );
        assert!(!dir.path().join("out.tar").exists());
    }
    // Two directories that lead into each other.
    let dir = scratch(&[("a/1", b""), ("b/2", b"")]);
    symlink("../b", model_of(&dir).join("a/to-b")).unwrap();
    symlink("../a", model_of(&dir).join("b/to-a")).unwrap();
    let text = problem(pack_in(dir.path(), &options()));
    assert!(text.contains("model/a/to-b/to-a: is a symbolic link to a directory that contains it"));
}

#[test]
fn k5_the_model_directory_itself_may_be_a_link() {
    let dir = scratch(&[]);
    fs::remove_dir(model_of(&dir)).unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/a"), b"1").unwrap();
    symlink("a", dir.path().join("real/b")).unwrap();
    symlink("real", model_of(&dir)).unwrap();
    assert_eq!(titles_in(&dir), ["a", "b"]);
}

#[test]
fn k6_hard_links_are_separate_paths() {
    let dir = scratch(&[("a", b"same")]);
    fs::hard_link(model_of(&dir).join("a"), model_of(&dir).join("b")).unwrap();
    assert_eq!(titles_in(&dir), ["a", "b"]);
}

#[test]
fn k7_lists_every_name_that_cannot_be_packed() {
    let dir = scratch(&[("good", b"1")]);
    let bad = [
        &b"not-utf8-\xff"[..],
        b"new\nline",
        b"bad-dir\x01/inner\x02",
        b"bad-dir\x01/good",
    ];
    for name in bad {
        let path = model_of(&dir).join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    // A component is at most 255 bytes long, but a path may be too deep.
    let deep = model_of(&dir).join(vec!["d"; 64].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), b"").unwrap();
    let text = problem(pack_in(dir.path(), &options()));
    let (_, text) = text.split_once("model: ").unwrap();
    assert_eq!(
        text,
        format!(
            "5 names cannot be packed: \
             \"bad-dir\\u{{1}}\" contains a control character, \
             \"bad-dir\\u{{1}}/inner\\u{{2}}\" contains a control character, \
             \"{}/file\" is 65 components deep, the limit is 64, \
             \"new\\u{{a}}line\" contains a control character, \
             \"not-utf8-\\xff\" is not UTF-8",
            vec!["d"; 64].join("/")
        )
    );
}

#[test]
fn k10_an_output_that_exists_is_kept() {
    let dir = scratch(&[("a", b"1")]);
    fs::write(dir.path().join("out.tar"), b"precious").unwrap();
    let text = problem(pack_in(dir.path(), &options()));
    assert!(text.ends_with("out.tar: output exists; use --force to replace it"));
    assert_eq!(fs::read(dir.path().join("out.tar")).unwrap(), b"precious");
    let force = PackOptions {
        force: true,
        ..options()
    };
    pack_in(dir.path(), &force).unwrap();
    Written::read(&dir.path().join("out.tar"));
    assert_eq!(listing(dir.path()), ["model", "out.tar"]);

    // Nothing but files is ever replaced.
    let output = Output::File("/dev/null".into());
    let result = pack(&model_of(&dir), &config(), &output, &force, &|_, _| {});
    assert_eq!(
        problem(result),
        "/dev/null: exists and is not a regular file"
    );
}

#[test]
fn k10_the_output_inside_the_model_is_not_packed() {
    let dir = scratch(&[("a", b"1")]);
    fs::write(model_of(&dir).join(".modeloci-0x1y2z.tmp"), b"left").unwrap();
    let output = Output::File(model_of(&dir).join("out.tar"));
    let force = PackOptions {
        force: true,
        ..options()
    };
    let mut archives = Vec::new();
    for _ in 0..2 {
        let packed = pack(&model_of(&dir), &config(), &output, &force, &|_, _| {}).unwrap();
        assert_eq!(
            packed.warnings,
            ["\".modeloci-0x1y2z.tmp\" was left by an interrupted run and is not packed"]
        );
        archives.push(fs::read(model_of(&dir).join("out.tar")).unwrap());
    }
    assert_eq!(Written::parse(&archives[0]).titles(), ["a"]);
    assert!(archives[0] == archives[1]);
}

#[test]
fn k10_a_concurrent_output_is_not_replaced() {
    let dir = scratch(&[("a", b"1")]);
    let output = dir.path().join("out.tar");
    let result = pack(
        &model_of(&dir),
        &config(),
        &Output::File(output.clone()),
        &options(),
        &|_, _| fs::write(&output, b"another").unwrap(),
    );
    assert!(problem(result).contains("output exists"));
    assert_eq!(fs::read(&output).unwrap(), b"another");
    assert_eq!(listing(dir.path()), ["model", "out.tar"]);
}

#[test]
fn k11_empty_directories_are_packed() {
    let dir = scratch(&[("a", b"1")]);
    fs::create_dir_all(model_of(&dir).join("x/empty")).unwrap();
    fs::create_dir_all(model_of(&dir).join("other")).unwrap();
    let packed = pack_in(dir.path(), &options()).unwrap();
    assert_eq!(packed.warnings, [""; 0]);
    assert_eq!((packed.files, packed.layers.len()), (1, 3));
    let model = Model::open(dir.path().join("out.tar"), &OpenOptions::default()).unwrap();
    let empty = model.empty_directories().iter().map(EntryPath::as_str);
    assert_eq!(empty.collect::<Vec<_>>(), ["other", "x/empty"]);
    assert_eq!(model.files().len(), 1);
}

#[test]
fn k11_no_files_make_a_valid_archive() {
    let dir = scratch(&[]);
    let packed = pack_in(dir.path(), &options()).unwrap();
    assert_eq!((packed.files, packed.file_bytes), (0, 0));
    assert!(packed.warnings[0].ends_with("model holds no files"));
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(
        written.layers(),
        [json!({
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2
        })]
    );
    assert_eq!(written.blob(&written.layers()[0]), b"{}");
}

#[test]
fn k12_names_that_cannot_be_references() {
    let dir = scratch(&[]);
    for (name, version) in [
        ("", "1"),
        ("a/", "1"),
        ("a/../b", "1"),
        ("a", ""),
        ("a", "1/2"),
        ("a\n", "1"),
    ] {
        let config = OciConfig {
            model_name: name.into(),
            version: version.into(),
            ..config()
        };
        let output = Output::File(dir.path().join("out.tar"));
        let result = pack(&model_of(&dir), &config, &output, &options(), &|_, _| {});
        assert_eq!(result.unwrap_err().kind(), crate::ErrorKind::Usage);
    }
}

#[test]
fn directories_that_are_not_there() {
    let dir = scratch(&[("a", b"1")]);
    let run = |model: &str, output: &str| {
        let output = Output::File(dir.path().join(output));
        let result = pack(
            &dir.path().join(model),
            &config(),
            &output,
            &options(),
            &|_, _| {},
        );
        let error = result.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        error.to_string()
    };
    assert!(run("missing", "out.tar").ends_with("missing does not exist"));
    assert!(run("model/a/", "out.tar").ends_with("model/a/ is not a directory"));
    assert!(run("model", "missing/out.tar").ends_with("missing does not exist"));
    assert!(run("model", "out/").ends_with("is not a file name"));
}

#[test]
fn k19_a_single_file() {
    let dir = scratch(&[("m.gguf", b"weights"), ("other", b"2")]);
    let file = model_of(&dir).join("m.gguf");
    std::os::unix::fs::symlink("model/m.gguf", dir.path().join("link.gguf")).unwrap();
    let run = |model: &Path, options: &PackOptions| {
        let output = Output::File(dir.path().join("out.tar"));
        let packed = pack(model, &config(), &output, options, &|_, _| {});
        packed.map(|_| fs::read(dir.path().join("out.tar")).unwrap())
    };
    let force = PackOptions {
        force: true,
        ..options()
    };
    let archive = run(&file, &force).unwrap();
    assert_eq!(Written::parse(&archive).titles(), ["m.gguf"]);
    // As a directory of that one file.
    let alone = scratch(&[("m.gguf", b"weights")]);
    pack_in(alone.path(), &options()).unwrap();
    assert!(archive == fs::read(alone.path().join("out.tar")).unwrap());
    // A link gives its own name.
    let archive = run(&dir.path().join("link.gguf"), &force).unwrap();
    assert_eq!(Written::parse(&archive).titles(), ["link.gguf"]);
    // A file is checked like others, and there is nothing to choose.
    fs::write(model_of(&dir).join("x.part"), b"").unwrap();
    let text = run(&model_of(&dir).join("x.part"), &force).unwrap_err();
    assert!(
        text.to_string()
            .contains("\"x.part\" is an incomplete download"),
        "{text}"
    );
    let choose = PackOptions {
        exclude: vec!["x".into()],
        ..force.clone()
    };
    let error = run(&file, &choose).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
    // It is not replaced by its own archive.
    let output = Output::File(file.clone());
    let result = pack(&file, &config(), &output, &force, &|_, _| {});
    assert!(problem(result).ends_with("m.gguf: is the output, too"));
    assert_eq!(fs::read(&file).unwrap(), b"weights");
}

#[test]
fn k12_a_version_that_is_no_tag_is_a_warning() {
    let dir = scratch(&[("a", b"1")]);
    let warnings = |version: &str| {
        let config = OciConfig {
            model_name: "meta-llama/Llama-3.1-8B".into(),
            version: version.into(),
            ..config()
        };
        let output = Output::File(dir.path().join("out.tar"));
        let force = PackOptions {
            force: true,
            ..options()
        };
        let packed = pack(&model_of(&dir), &config, &output, &force, &|_, _| {});
        packed.unwrap().warnings
    };
    for version in ["1.0.0", "_x", "v1.0-rc.1_2"] {
        assert_eq!(warnings(version), [""; 0]);
    }
    for version in ["1.0+cu121", "\u{e9}", "a b", "1:2"] {
        let expected = format!(
            "version \"{version}\" cannot be a tag in a registry: a tag has letters, digits, \"_\", \
             \".\" and \"-\" only"
        );
        assert_eq!(warnings(version), [expected]);
    }
    let written = Written::read(&dir.path().join("out.tar"));
    let config: Value = serde_json::from_slice(&written.entries["config.json"]).unwrap();
    assert_eq!(config["model_name"], "meta-llama/Llama-3.1-8B");
}
