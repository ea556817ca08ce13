#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::layer::Reading;
use crate::oci::stated::MediaTypes;
use crate::oci::{Descriptor, Stated, media_type};
use crate::systems::{Head, Part, of};

/// What stands in a layer: `d/` is a directory, `s -> t` a symbolic link, `h => t` a hard one, `!p` a pipe.
/// Files are numbered.
fn members(texts: &[&str]) -> Vec<Listed> {
    let mut number = 0;
    let bytes = |text: &str| text.as_bytes().into();
    let member = |text: &&str| {
        let (path, kind) = if let Some((path, target)) = text.split_once(" -> ") {
            (path, ListedKind::Symlink(bytes(target)))
        } else if let Some((path, target)) = text.split_once(" => ") {
            (path, ListedKind::HardLink(bytes(target)))
        } else if let Some(path) = text.strip_prefix('!') {
            (path, ListedKind::Special)
        } else if text.ends_with('/') {
            (*text, ListedKind::Directory)
        } else {
            number += 1;
            (*text, ListedKind::File(number - 1))
        };
        let path = bytes(path);
        Listed { path, kind }
    };
    texts.iter().map(member).collect()
}

fn layer(number: usize, names: Names) -> ArchiveLayer {
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &number.to_le_bytes());
    let stated = Stated::of(&descriptor, &mut MediaTypes::default()).unwrap();
    ArchiveLayer {
        part: Part {
            number,
            stated: Arc::new(stated),
            reading: Reading::Members,
        },
        names,
    }
}

fn system(config_type: &str) -> &'static dyn System {
    of(&Head {
        artifact_type: None,
        config_type,
        layer_type: None,
        original_spelling: false,
    })
}

/// What is shown of layers: `path number`, `path/` for an empty directory, and remarks.
fn composed(
    config_type: &str,
    layers: &[(Names, &[&str])],
    below: Option<&str>,
) -> Result<(Vec<String>, Vec<String>)> {
    let mut notes = Notes::default();
    let mut composed = Composed::new(system(config_type), u64::MAX, &mut notes);
    for (number, (names, texts)) in layers.iter().enumerate() {
        let first = 100 * number as u32;
        composed.add_layer(&layer(number, names.clone()), &members(texts), first)?;
    }
    let directory = below.map(|path| composed.directory(path).unwrap());
    let shown = composed.shown(directory)?;
    let files = shown
        .files
        .iter()
        .map(|(path, file)| format!("{path} {file}"));
    let empty = shown.empty.iter().map(|path| format!("{path}/"));
    let mut all: Vec<String> = files.chain(empty).collect();
    all.sort();
    Ok((all, notes.to_vec()))
}

/// As an image, all of it.
fn image(layers: &[&[&str]]) -> (Vec<String>, Vec<String>) {
    let layers: Vec<_> = layers.iter().map(|texts| (Names::Root, *texts)).collect();
    composed(media_type::IMAGE_CONFIG, &layers, None).unwrap()
}

/// As an artifact.
fn apart(layers: &[&[&str]]) -> Result<(Vec<String>, Vec<String>)> {
    let layers: Vec<_> = layers.iter().map(|texts| (Names::Root, *texts)).collect();
    composed(media_type::EMPTY, &layers, None)
}

#[test]
fn leading_dots_and_slashes_are_no_names() {
    let (all, notes) = apart(&[&["./", "./a", "/b", "d/", ".//d//x", "e/f/"]]).unwrap();
    assert_eq!(all, ["a 0", "b 1", "d/x 2", "e/f/"]);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn l17_the_later_member_of_a_layer_wins() {
    let (all, _) = apart(&[&["a", "a", "b", "b/", "b/c", "d/", "d/x", "d"]]).unwrap();
    assert_eq!(all, ["a 1", "b/c 3", "d 5"]);
}

#[test]
fn l17_two_layers_of_one_path_are_an_error_that_names_both() {
    for (one, other) in [
        ("a", "a"),
        ("d/a", "d/a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a -> b", "a"),
    ] {
        let error = apart(&[&[one, "b"], &["c"], &[other]])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("two layers, 0 and 2"),
            "{one}, {other}: {error}"
        );
    }
    let (all, _) = apart(&[&["d/", "d/a"], &["d/", "d/b"]]).unwrap();
    assert_eq!(all, ["d/a 0", "d/b 100"]);
}

#[test]
fn layers_of_an_image_lie_over_each_other() {
    let (all, _) = image(&[
        &["a", "d/", "d/x", "d/y", "e/", "e/z", "f"],
        &["a", "d", "e/", "e/new", "f/", "f/g"],
    ]);
    assert_eq!(all, ["a 100", "d 101", "e/new 102", "e/z 3", "f/g 103"]);
}

#[test]
fn whiteouts_take_away_what_is_below_and_nothing_else() {
    let (all, notes) = image(&[
        &[
            "a", "b/", "b/x", "b/y", "c/", "c/x", "c/d/", "c/d/y", "e/", "e/x",
        ],
        // A whiteout hides nothing of its own layer, in whatever order they come.
        &[
            "c/new",
            ".wh.a",
            "b/.wh.x",
            "c/.wh..wh..opq",
            "e/x",
            ".wh.e",
            ".wh.gone",
            ".wh..wh.plnk",
        ],
    ]);
    assert_eq!(all, ["b/y 2", "c/new 100", "e/x 104"]);
    assert_eq!(notes, [""; 0]);
    // Elsewhere it is a name like others.
    let (all, _) = apart(&[&["a", ".wh.a"]]).unwrap();
    assert_eq!(all, [".wh.a 1", "a 0"]);
}

#[test]
fn links_are_what_they_lead_to() {
    let texts: &[&str] = &[
        "d/",
        "d/x",
        "file -> d/x",
        "up/",
        "up/x -> ../d/x",
        "dir -> d",
        "again -> dir/x",
        "d/hard => d/x",
        "chain -> file",
    ];
    for (all, notes) in [image(&[texts]), apart(&[texts]).unwrap()] {
        assert_eq!(
            all,
            [
                "again 0",
                "chain 0",
                "d/hard 0",
                "d/x 0",
                "dir/hard 0",
                "dir/x 0",
                "file 0",
                "up/x 0"
            ]
        );
        assert_eq!(notes, [""; 0]);
    }
}

#[test]
fn absolute_links_and_those_that_leave_count_from_the_root_of_an_image_only() {
    let texts: &[&str] = &["d/", "d/x", "abs -> /d/x", "out -> ../../d/x"];
    assert_eq!(image(&[texts]).0, ["abs 0", "d/x 0", "out 0"]);
    let (all, notes) = apart(&[texts]).unwrap();
    assert_eq!(all, ["d/x 0"]);
    assert_eq!(
        notes,
        [
            "abs is a link to \"/d/x\", an absolute path; it is left out",
            "out is a link to \"../../d/x\", outside of the model; it is left out",
        ]
    );
}

#[test]
fn a_member_below_a_link_stands_where_the_link_leads() {
    let (all, _) = image(&[&["usr/", "usr/lib/", "lib -> usr/lib"], &["lib/x"]]);
    assert_eq!(all, ["lib/x 100", "usr/lib/x 100"]);
    let (all, notes) = image(&[&["lib -> nowhere"], &["lib/x"]]);
    assert_eq!(all, [""; 0]);
    assert!(
        notes[0].contains("below a link that leads to no directory"),
        "{notes:?}"
    );
}

#[test]
fn l17_what_cannot_be_shown_is_left_out_with_a_remark() {
    let long = "n".repeat(256);
    for (text, why) in [
        ("dead -> nothing", "which is not there"),
        ("a -> a", "in a circle"),
        ("!pipe", "is a device or a pipe"),
        ("../x", "has a \"..\" in its path"),
        ("a\u{7}b", "control character"),
        (&*long, "component of 256 bytes"),
        ("gone => missing", "which is not there"),
        ("d => x/", "which is not there"),
    ] {
        for layers in [image(&[&["f", text]]), apart(&[&["f", text]]).unwrap()] {
            let (all, notes) = layers;
            assert_eq!(all, ["f 0"], "{text}");
            assert_eq!(notes.len(), 1, "{text}: {notes:?}");
            assert!(notes[0].contains(why), "{text}: {}", notes[0]);
            assert!(notes[0].ends_with("it is left out"), "{}", notes[0]);
        }
    }
}

#[test]
fn l18_links_to_directories_that_they_are_in_end() {
    let (all, notes) = image(&[&[
        "a/",
        "a/x",
        "a/self -> .",
        "a/up -> ..",
        "b/",
        "b/to -> ../a",
    ]]);
    assert_eq!(all, ["a/x 0", "b/to/x 0"]);
    assert!(
        notes.iter().all(|note| note.contains("which it is in")),
        "{notes:?}"
    );
}

#[test]
fn l18_links_that_multiply_are_refused_and_not_followed_without_end() {
    let mut texts = vec!["d0/".to_string(), "d0/x".into()];
    for n in 1..40 {
        texts.push(format!("d{n}/"));
        for name in ["a", "b"] {
            texts.push(format!("d{n}/{name} -> ../d{}", n - 1));
        }
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let layers: [(Names, &[&str]); 1] = [(Names::Root, &texts)];
    let error = composed(media_type::IMAGE_CONFIG, &layers, None).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

/// What a layer puts in the place of a link is not where that has led.
#[test]
fn l22_a_whiteout_takes_away_where_its_path_leads_when_it_comes() {
    let lower: &[&str] = &["v1/", "v1/w", "current -> v1"];
    for white in ["current/.wh..wh..opq", "current/.wh.w"] {
        let (all, _) = image(&[lower, &["current/", white, "current/new"]]);
        assert_eq!(all, ["current/new 101", "v1/w 0"], "{white}");
        // Before it is replaced, the link leads there.
        let (all, _) = image(&[lower, &[white, "x"]]);
        assert_eq!(all, ["current/", "v1/", "x 101"], "{white}");
    }
    let long = "n".repeat(252);
    let (all, _) = image(&[&[&long, "f"], &[&format!(".wh.{long}")]]);
    assert_eq!(all, ["f 1"]);
    // No member has ".." in its path, and no whiteout.
    let (all, _) = image(&[
        &["d/", "d/a", "f"],
        &["d/../.wh.f", "../.wh.f", "d/./.wh.a"],
    ]);
    assert_eq!(all, ["d/", "f 1"]);
    // A directory that is stated again stays, without what was in it.
    let (all, _) = image(&[
        &["d/", "d/a", "e/", "e/a"],
        &["d/", ".wh.d", "e/new", ".wh.e"],
    ]);
    assert_eq!(all, ["d/", "e/new 101"]);
}

#[test]
fn l18_links_take_no_more_steps_than_there_are() {
    let chain: Vec<String> = (0..30)
        .map(|n| format!("l{n} -> {}l{}", "./".repeat(2_000), n + 1))
        .chain(["l30".to_string()])
        .chain((0..5_000).map(|n| format!("x{n} -> l0")))
        .collect();
    let texts: Vec<&str> = chain.iter().map(String::as_str).collect();
    let layers: [(Names, &[&str]); 1] = [(Names::Root, &texts)];
    let error = composed(media_type::IMAGE_CONFIG, &layers, None).unwrap_err();
    assert!(error.to_string().contains("too many steps"), "{error}");
    let longer = format!("far -> {}f", "./".repeat(2_100));
    let (all, notes) = image(&[&["f", &longer]]);
    assert_eq!(all, ["f 0"]);
    assert!(notes[0].contains("a path of 4201 bytes"), "{notes:?}");

    // What is left out for its path counts, too.
    let mut texts = vec!["many/".to_string()];
    texts.extend((0..1_100).map(|n| format!("many/{n}")));
    let deep = "d/".repeat(64);
    texts.extend((0..1_000).map(|n| format!("{deep}{n} -> /many")));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let layers: [(Names, &[&str]); 1] = [(Names::Root, &texts)];
    let result = composed(media_type::IMAGE_CONFIG, &layers, None);
    assert!(
        result.is_ok_and(|(all, _)| all.len() == 1_101),
        "left out, and no deeper"
    );
}

#[test]
fn l17_links_do_not_lead_through_files() {
    let (all, notes) = image(&[&["f", "g", "x -> f/../g", "y -> f/", "z -> f/.", "ok -> g"]]);
    assert_eq!(all, ["f 0", "g 1", "ok 1"]);
    assert!(
        notes.iter().all(|note| note.contains("through a file")),
        "{notes:?}"
    );
}

#[test]
fn l21_a_tree_takes_no_more_memory_than_there_is() {
    let mut notes = Notes::default();
    let mut composed = Composed::new(
        system(media_type::IMAGE_CONFIG),
        10 * NODE_BYTES,
        &mut notes,
    );
    let texts: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = composed
        .add_layer(&layer(0, Names::Root), &members(&texts), 0)
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Environment);
    assert!(error.to_string().contains("--cache-size"), "{error}");
}

#[test]
fn a_directory_of_an_image_is_shown_alone() {
    let layers: [(Names, &[&str]); 1] = [(
        Names::Root,
        &["etc/", "etc/x", "models/", "models/m", "models/e -> ../etc"],
    )];
    let (all, _) = composed(media_type::IMAGE_CONFIG, &layers, Some("models")).unwrap();
    assert_eq!(all, ["e/x 0", "m 1"]);
}

#[test]
fn names_count_from_where_the_manifest_says() {
    let path = |text: &str| EntryPath::new(text).unwrap();
    let below = |text: &str| Names::Below(path(text));
    let file = |text: &str| Names::File(path(text));
    for (names, texts, expected) in [
        // A kit, old and new.
        (
            below("models/llama"),
            &["x", "y/", "y/z"][..],
            &["models/llama/x 0", "models/llama/y/z 1"][..],
        ),
        (
            below("models/llama"),
            &["models/", "models/llama/", "models/llama/x"],
            &["models/llama/x 0"],
        ),
        (below("models/m.gguf"), &["m.gguf"], &["models/m.gguf 0"]),
        (
            below("models/m.gguf"),
            &["models/m.gguf"],
            &["models/m.gguf 0"],
        ),
        // One file is the file that the manifest names.
        (file("a/b/w.bin"), &["w.bin"], &["a/b/w.bin 0"]),
        (file("a/b/w.bin"), &["x/", "x/w.bin"], &["a/b/w.bin 0"]),
        (
            file("a/w.bin"),
            &["w.bin", "v.bin"],
            &["v.bin 1", "w.bin 0"],
        ),
        (file("code"), &["code/", "code/a.py"], &["code/a.py 0"]),
        // The path is that of a directory, with a file of its name in it.
        (file("code"), &["code/", "code/code"], &["code/code 0"]),
        (below("data"), &["data/", "data/data"], &["data/data 0"]),
        (below("data"), &["data/sub/data"], &["data/sub/data 0"]),
        // What is linked is below it, too.
        (below("data"), &["e", "h => e"], &["data/e 0", "data/h 0"]),
    ] {
        let (all, notes) = composed(media_type::EMPTY, &[(names, texts)], None).unwrap();
        assert_eq!(all, expected, "{texts:?}");
        assert_eq!(notes, [""; 0]);
    }
}
