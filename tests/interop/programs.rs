//! Layers read by other people's programs and libraries: each sees the model's file and no more.

use std::fs;
use std::path::PathBuf;

use super::workspace::{Workspace, finds, has, shell};
use super::{CHUNK_OPTIONS, Layout, beside, contents, model};

/// The program whose presence is asked for, and a script that extracts the layer `$1`, or all layers
/// `$@` at once, below the working directory.
type Extractor = (&'static str, &'static str);

const GZIP: [Extractor; 11] = [
    ("gzip", "gzip -dc <\"$1\" | tar -x"),
    ("gzip", "gzip -t <\"$1\"; tar -xzf \"$1\""),
    ("pigz", "pigz -dc <\"$1\" | tar -x"),
    ("igzip", "igzip -dc <\"$1\" | tar -x"),
    ("bsdtar", "bsdtar -xf \"$1\""),
    ("bsdtar", "bsdtar -xzf - <\"$1\""),
    ("busybox", "busybox gunzip -c <\"$1\" | busybox tar -x"),
    ("busybox", "busybox tar -xzf \"$1\""),
    (
        "python3",
        "python3 \"$READERS/python_reader.py\" r:gz \"$@\"",
    ),
    (
        "python3",
        "python3 \"$READERS/python_reader.py\" 'r|gz' \"$@\"",
    ),
    (
        "python3",
        "python3 \"$READERS/python_reader.py\" zlib \"$@\"",
    ),
];

const ZSTD: [Extractor; 4] = [
    ("zstd", "zstd -dc <\"$1\" | tar -x"),
    ("zstd", "zstd -qt <\"$1\"; tar --zstd -xf \"$1\""),
    ("bsdtar", "bsdtar -xf \"$1\""),
    ("bsdtar", "bsdtar --zstd -xf - <\"$1\""),
];

/// As [`Extractor`], but the script prints the SHA-256 of what it decodes of each layer. Java runs a
/// source file only where its compiler is.
const DECODERS: [Extractor; 3] = [
    ("perl", "perl \"$READERS/gunzip.pl\" \"$@\""),
    ("node", "node \"$READERS/gunzip.mjs\" \"$@\""),
    (
        "javac",
        "java -XX:TieredStopAtLevel=1 \"$READERS/Gunzip.java\" \"$@\"",
    ),
];

/// Packs the model with each of `options` and has every program extract it.
#[track_caller]
fn all_extract(options: &[&[&str]], extractors: &[Extractor]) {
    let workspace = Workspace::new();
    let model = model(&workspace);
    let expected = contents(&model);
    for (i, options) in options.iter().enumerate() {
        let archive = workspace.pack(&model, &format!("{i}.tar"), options);
        let layers = Layout::of(&workspace, &archive).layers();
        assert_eq!(layers.len(), expected.len());
        for (j, (program, script)) in extractors.iter().enumerate() {
            if !has(program) {
                continue;
            }
            let out = workspace.path(format!("{i}-{j}"));
            fs::create_dir(&out).unwrap();
            let script = if script.contains("$@") {
                script.to_string()
            } else {
                format!("for layer; do set -- \"$layer\"; {script}; done")
            };
            let script = format!("export READERS=$1; cd \"$2\"; shift 2; umask 022; {script}");
            let mut args = vec![beside(""), out.clone()];
            args.extend(layers.iter().cloned());
            let args: Vec<_> = args.iter().map(|path| path.as_path()).collect();
            let said = shell(&script, &args);
            assert!(
                said.is_empty(),
                "{script}: {}",
                String::from_utf8_lossy(&said)
            );
            assert_eq!(contents(&out), expected, "{options:?}: {script}");
        }
    }
}

#[test]
fn gzip_layers_are_extracted_by_all() {
    let [chunk, size] = CHUNK_OPTIONS;
    all_extract(
        &[
            &[],
            &[chunk, size],
            &[chunk, size, "--compression", "gzip:1"],
            &["--compression", "none"],
            &[
                chunk,
                size,
                "--compression",
                "gzip:9",
                "--chunk-digest",
                "sha256",
            ],
        ],
        &GZIP,
    );
}

#[test]
fn zstd_layers_are_extracted_by_all() {
    let [chunk, size] = CHUNK_OPTIONS;
    all_extract(
        &[
            &["--compression", "zstd"],
            &[chunk, size, "--compression", "zstd:1"],
            &[chunk, size, "--compression", "zstd:19"],
        ],
        &ZSTD,
    );
}

/// Gzip readers of other languages, without a tar reader behind: each prints, for every layer that
/// it is given, the SHA-256 of what it decodes.
#[test]
fn gzip_readers_of_other_languages_decode_the_same() {
    let workspace = Workspace::new();
    let model = model(&workspace);
    let [chunk, size] = CHUNK_OPTIONS;
    let options = [
        &[][..],
        &[chunk, size],
        &[chunk, size, "--compression", "gzip:6"],
        &["--compression", "none"],
    ];
    for (i, options) in options.iter().enumerate() {
        let archive = workspace.pack(&model, &format!("{i}.tar"), options);
        let layers = Layout::of(&workspace, &archive).layers();
        let readers = beside("");
        let mut args = vec![readers.as_path()];
        args.extend(layers.iter().map(PathBuf::as_path));
        let decode = |script: &str| {
            let script = format!("export READERS=$1; shift; {script}");
            String::from_utf8(shell(&script, &args)).unwrap()
        };
        let expected = decode("for layer; do gzip -dc <\"$layer\" | sha256sum | cut -c1-64; done");
        for (program, script) in DECODERS {
            if has(program) {
                assert_eq!(decode(script), expected, "{program} {options:?}");
            }
        }
        // A large toolchain, so it need not be there; its readers are also those of umoci.
        if finds("go") {
            assert_eq!(
                decode("go run \"$READERS/gunzip.go\" \"$@\""),
                expected,
                "{options:?}"
            );
        }
    }
}
