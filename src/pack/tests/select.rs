//! What is left out, and what is not.

use super::*;

/// What is packed of a directory, and what is said to be left out.
fn select(dir: &tempfile::TempDir, options: &PackOptions) -> (Vec<String>, Vec<String>) {
    let force = PackOptions {
        force: true,
        ..options.clone()
    };
    let packed = pack_in(dir.path(), &force).unwrap();
    assert_eq!(packed.warnings, [""; 0]);
    let written = Written::read(&dir.path().join("out.tar"));
    let left_out = packed.left_out.iter();
    (
        written.titles().into_iter().map(String::from).collect(),
        left_out
            .map(|l| format!("{} {:?} {}", l.entries, l.by, l.pattern))
            .collect(),
    )
}

fn excluding(globs: &[&str]) -> PackOptions {
    PackOptions {
        exclude: globs.iter().map(|g| (*g).to_string()).collect(),
        ..options()
    }
}

fn including(globs: &[&str]) -> PackOptions {
    PackOptions {
        include: globs.iter().map(|g| (*g).to_string()).collect(),
        ..options()
    }
}

#[test]
fn k18_leftovers_are_left_out_by_default() {
    let dir = scratch(&[
        (".git/config", b""),
        ("sub/.git", b"gitdir: elsewhere"),
        ("code/__pycache__/a.pyc", b""),
        (".DS_Store", b""),
        ("sub/._model.bin", b""),
        (".config.json.swp", b""),
        ("config.json~", b""),
        (".cache/huggingface/download/config.json.metadata", b"1"),
        // Content: other caches, other lock files, what only looks like them.
        (".cache/other", b""),
        (".gitattributes", b""),
        ("a.lock", b""),
        ("huggingface/x", b""),
        ("config.json", b"{}"),
        ("sub/.modelociignore", b""),
    ]);
    let kept = [
        ".cache/other",
        ".gitattributes",
        "a.lock",
        "config.json",
        "huggingface/x",
        "sub/.modelociignore",
    ];
    let (titles, left_out) = select(&dir, &options());
    assert_eq!(titles, kept);
    assert_eq!(
        left_out,
        [
            "1 Default **/.cache/huggingface",
            "1 Default *.swp",
            "1 Default *~",
            "1 Default .DS_Store",
            "1 Default ._*",
            "2 Default .git",
            "1 Default __pycache__",
        ]
    );
    let all = PackOptions {
        default_excludes: false,
        ..options()
    };
    let (titles, left_out) = select(&dir, &all);
    assert_eq!(titles.len(), 14);
    assert_eq!(left_out, [""; 0]);
}

#[test]
fn k18_two_downloads_of_one_model_are_one_digest() {
    let mut archives = Vec::new();
    for time in ["1700000001.0", "1700000002.0"] {
        let dir = scratch(&[
            ("config.json", b"{}"),
            (".cache/huggingface/download/x.metadata", time.as_bytes()),
        ]);
        pack_in(dir.path(), &options()).unwrap();
        archives.push(fs::read(dir.path().join("out.tar")).unwrap());
    }
    assert!(archives[0] == archives[1]);
}

/// What an interrupted download keeps there has no place in the model, and tells that something
/// else is not in its place.
#[test]
fn k16_an_incomplete_download_is_found_in_what_is_left_out() {
    let part = ".cache/huggingface/download/sub/x.0123.incomplete";
    let dir = scratch(&[("config.json", b"{}"), (part, b"")]);
    let text = problem(pack_in(dir.path(), &options()));
    assert!(
        text.contains(&format!("\"{part}\" is an incomplete download")),
        "{text}"
    );
    let allow = PackOptions {
        allow_incomplete: true,
        ..options()
    };
    assert_eq!(pack_in(dir.path(), &allow).unwrap().files, 1);
}

#[test]
fn k18_excludes_and_includes() {
    let dir = scratch(&[
        ("a.bin", b""),
        ("a.txt", b""),
        ("docs/b.txt", b""),
        ("sub/docs/c.bin", b""),
        ("#x", b""),
        ("!y", b""),
    ]);
    let titles = |options: &PackOptions| select(&dir, options).0;
    assert_eq!(
        titles(&excluding(&["*.txt", "docs", "#x", "!y"])),
        ["a.bin"]
    );
    assert_eq!(
        titles(&excluding(&["/docs/", "sub/docs/*.bin", "?[xy]"])),
        ["a.bin", "a.txt"]
    );
    assert_eq!(titles(&including(&["*.bin"])), ["a.bin", "sub/docs/c.bin"]);
    assert_eq!(
        titles(&including(&["docs", "#x"])),
        ["#x", "docs/b.txt", "sub/docs/c.bin"]
    );
    assert_eq!(titles(&including(&["/docs"])), ["docs/b.txt"]);
    let both = PackOptions {
        exclude: vec!["sub".into()],
        ..including(&["*.bin"])
    };
    let (titles, left_out) = select(&dir, &both);
    assert_eq!(titles, ["a.bin"]);
    assert_eq!(left_out, ["1 Exclude sub", "4 Include "]);
    // What an option leaves out may be missing, or anything at all.
    std::os::unix::fs::symlink("/etc/passwd", model_of(&dir).join("link")).unwrap();
    select(&dir, &excluding(&["link"]));
}

#[test]
fn k18_globs_that_match_nothing_or_are_none() {
    let dir = scratch(&[("a", b"")]);
    let text = problem(pack_in(dir.path(), &including(&["b", "c/"])));
    assert!(text.ends_with("model: no file of it is included"), "{text}");
    for bad in ["", " ", "/", "{a"] {
        for options in [excluding(&[bad]), including(&[bad])] {
            let error = pack_in(dir.path(), &options).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{bad}: {error}");
        }
    }
    assert_eq!(listing(dir.path()), ["model"]);
}

#[test]
fn k18_the_file_of_patterns() {
    let dir = scratch(&[
        ("a.bin", b""),
        ("b.bin", b""),
        ("keep~", b""),
        ("sub/a.bin", b""),
        ("logs/x", b""),
    ]);
    let file = model_of(&dir).join(".modelociignore");
    fs::write(
        &file,
        "# comment\r\n*.bin\r\n!/a.bin\r\nlogs/\r\n!keep~\r\n",
    )
    .unwrap();
    let (titles, left_out) = select(&dir, &options());
    assert_eq!(titles, ["a.bin", "keep~"]);
    assert_eq!(
        left_out,
        [
            "1 Default /.modelociignore",
            "2 IgnoreFile *.bin",
            "1 IgnoreFile logs/"
        ]
    );
    // An option is stronger.
    assert_eq!(select(&dir, &excluding(&["a.bin"])).0, ["keep~"]);
    // The defaults alone are turned off.
    let off = PackOptions {
        default_excludes: false,
        ..options()
    };
    assert_eq!(select(&dir, &off).0, [".modelociignore", "a.bin", "keep~"]);
    // By way of a link inside, too.
    fs::rename(&file, model_of(&dir).join("patterns")).unwrap();
    std::os::unix::fs::symlink("patterns", &file).unwrap();
    assert_eq!(select(&dir, &options()).0, ["a.bin", "keep~", "patterns"]);
}

#[test]
fn k18_a_file_of_patterns_that_is_none() {
    let dir = scratch(&[("a", b"")]);
    let file = model_of(&dir).join(".modelociignore");
    for (content, problem) in [
        (&b"\xff"[..], "is not UTF-8"),
        (
            &vec![b'\n'; 100_000],
            "has 100000 bytes, the limit is 65536",
        ),
        (b"{a", "{a"),
    ] {
        fs::write(&file, content).unwrap();
        let text = pack_in(dir.path(), &options()).unwrap_err().to_string();
        assert!(
            text.contains(".modelociignore") && text.contains(problem),
            "{text}"
        );
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let text = pack_in(dir.path(), &options()).unwrap_err().to_string();
    assert!(text.contains("is not a regular file"), "{text}");
    assert_eq!(listing(dir.path()), ["model"]);
}
