//! Snapshots in the cache of the Hugging Face client, and links that lead elsewhere.

use std::os::unix::fs::symlink;

use super::*;

const REVISION: &str = "0123456789abcdef";

/// A cache with one repository of one snapshot; returns the snapshot.
fn cache() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("hub/models--org--name");
    let snapshot = repository.join("snapshots").join(REVISION);
    fs::create_dir_all(snapshot.join("onnx")).unwrap();
    for (name, content) in [("aa", "config"), ("bb", "weights")] {
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("blobs").join(name), content).unwrap();
    }
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), REVISION).unwrap();
    symlink("../../blobs/aa", snapshot.join("config.json")).unwrap();
    symlink("../../../blobs/bb", snapshot.join("onnx/model.onnx")).unwrap();
    (dir, snapshot)
}

fn pack_path(dir: &tempfile::TempDir, model: &Path, options: &PackOptions) -> Result<Packed> {
    let output = Output::File(dir.path().join("out.tar"));
    let force = PackOptions {
        force: true,
        ..options.clone()
    };
    pack(model, &config(), &output, &force, &|_, _| {})
}

fn dereference() -> PackOptions {
    PackOptions {
        dereference: true,
        ..options()
    }
}

/// Title and digest of every file.
fn packed(dir: &tempfile::TempDir) -> Vec<(String, String)> {
    let written = Written::read(&dir.path().join("out.tar"));
    let layers = written.layers().iter().map(|layer| {
        let annotation = |key: &str| layer["annotations"][key].as_str().unwrap().to_string();
        (
            annotation("org.opencontainers.image.title"),
            annotation("io.modeloci.file.digest"),
        )
    });
    layers.collect()
}

fn of(title: &str, content: &str) -> (String, String) {
    (title.into(), Digest::sha256(content.as_bytes()).to_string())
}

#[test]
fn k20_a_snapshot_is_packed_with_its_blobs() {
    let (dir, snapshot) = cache();
    let files = [
        of("config.json", "config"),
        of("onnx/model.onnx", "weights"),
    ];
    // By its path, by a link to it, and a part of it.
    pack_path(&dir, &snapshot, &options()).unwrap();
    assert_eq!(packed(&dir), files);
    let alias = dir.path().join("alias");
    symlink(&snapshot, &alias).unwrap();
    pack_path(&dir, &alias, &options()).unwrap();
    assert_eq!(packed(&dir), files);
    pack_path(&dir, &snapshot.join("onnx"), &options()).unwrap();
    assert_eq!(packed(&dir), [of("model.onnx", "weights")]);
    // The same bytes as of a plain directory.
    pack_path(&dir, &snapshot, &options()).unwrap();
    let archive = fs::read(dir.path().join("out.tar")).unwrap();
    let plain = scratch(&[("config.json", b"config"), ("onnx/model.onnx", b"weights")]);
    pack_in(plain.path(), &options()).unwrap();
    assert!(archive == fs::read(plain.path().join("out.tar")).unwrap());
    // Its own file of patterns is a link, too.
    fs::write(snapshot.join("../../blobs/cc"), "onnx").unwrap();
    symlink("../../blobs/cc", snapshot.join(".modelociignore")).unwrap();
    pack_path(&dir, &snapshot, &options()).unwrap();
    assert_eq!(packed(&dir), files[..1]);
}

#[test]
fn k20_links_out_of_the_repository_are_refused() {
    for (target, rule) in [
        (
            "../../../secret",
            "is a symbolic link out of the model directory, to",
        ),
        (
            "/etc/hostname",
            "is a symbolic link out of the model directory, to",
        ),
        (
            "../../../models--org--other/blobs/dd",
            "is a symbolic link out",
        ),
        // Directories are not where blobs are.
        (
            "../../blobs",
            "is a symbolic link out of the model directory, to",
        ),
        (
            "../../blobs/below",
            "is a symbolic link out of the model directory, to ../../blobs/below; --dereference",
        ),
        ("..", "is a symbolic link out of the model directory, to .."),
        (
            "../../..",
            "is a symbolic link out of the model directory, to",
        ),
        ("../../blobs/absent", "leads nowhere"),
    ] {
        let (dir, snapshot) = cache();
        fs::write(dir.path().join("hub/secret"), "secret").unwrap();
        fs::create_dir(snapshot.join("../../blobs/below")).unwrap();
        let other = dir.path().join("hub/models--org--other/blobs");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("dd"), "other").unwrap();
        symlink(target, snapshot.join("link")).unwrap();
        let text = problem(pack_path(&dir, &snapshot, &options()));
        assert!(
            text.contains(&format!("/link: {rule}")) || text.contains(rule),
            "{text}"
        );
        assert!(!dir.path().join("out.tar").exists());
    }
    // The same tree by another name is no cache.
    let (dir, _) = cache();
    let hub = dir.path().join("hub");
    fs::rename(hub.join("models--org--name"), hub.join("other")).unwrap();
    let snapshot = hub.join("other/snapshots").join(REVISION);
    let text = problem(pack_path(&dir, &snapshot, &options()));
    assert!(
        text.ends_with(
            "config.json: is a symbolic link out of the model directory, to ../../blobs/aa; \
             --dereference follows it"
        ),
        "{text}"
    );
    pack_path(&dir, &snapshot, &dereference()).unwrap();
    assert_eq!(packed(&dir)[0], of("config.json", "config"));
}

/// Nothing of a repository but its blobs is a model's.
#[test]
fn k5_links_into_the_repository_lead_to_its_blobs_alone() {
    for target in [
        "../../refs/main",
        "../../private/token",
        "../old/config.json",
        "../old",
        "../../blobs/../private/token",
        "../../blobs/link",
    ] {
        let (dir, snapshot) = cache();
        let repository = snapshot.join("../..");
        fs::create_dir_all(repository.join("private")).unwrap();
        fs::write(repository.join("private/token"), "token").unwrap();
        fs::create_dir(repository.join("snapshots/old")).unwrap();
        symlink(
            "../../blobs/aa",
            repository.join("snapshots/old/config.json"),
        )
        .unwrap();
        symlink("../private/token", repository.join("blobs/link")).unwrap();
        let absolute = repository.canonicalize().unwrap().join("private/token");
        for target in [Path::new(target), &absolute] {
            symlink(target, snapshot.join("link")).unwrap();
            let text = problem(pack_path(&dir, &snapshot, &options()));
            let text = text.split("/link: ").nth(1).unwrap_or(&text);
            assert!(
                text.starts_with("is a symbolic link out of the model directory, to ")
                    && text.ends_with("; --dereference follows it"),
                "{target:?}: {text}"
            );
            assert!(!dir.path().join("out.tar").exists());
            pack_path(&dir, &snapshot, &dereference()).unwrap();
            fs::remove_file(snapshot.join("link")).unwrap();
            fs::remove_file(dir.path().join("out.tar")).unwrap();
        }
    }
}

/// What is called a repository, and what is only called so by a link.
#[test]
fn k20_a_repository_has_its_name_itself() {
    // Through links of the user: to the cache, to a snapshot, and back by another way.
    let (dir, snapshot) = cache();
    let files = [
        of("config.json", "config"),
        of("onnx/model.onnx", "weights"),
    ];
    let short = dir.path().join("short");
    symlink(snapshot.parent().unwrap(), &short).unwrap();
    for path in [
        short.join(REVISION),
        short.join(REVISION).join("onnx/.."),
        dir.path()
            .join("hub/models--org--name/refs/../snapshots")
            .join(REVISION),
    ] {
        pack_path(&dir, &path, &options()).unwrap();
        assert_eq!(packed(&dir), files, "{}", path.display());
    }
    // Within the snapshot, and its blobs by their absolute path.
    let blob = snapshot.join("../../blobs/bb").canonicalize().unwrap();
    symlink(blob, snapshot.join("onnx/weights")).unwrap();
    symlink("onnx/model.onnx", snapshot.join("short")).unwrap();
    pack_path(&dir, &snapshot, &options()).unwrap();
    let titles: Vec<_> = packed(&dir).into_iter().map(|(title, _)| title).collect();
    assert_eq!(
        titles,
        ["config.json", "onnx/model.onnx", "onnx/weights", "short"]
    );
    // A link makes no repository, nor is what is linked into one a part of it.
    for moved in ["", "/blobs", "/snapshots"] {
        let (dir, snapshot) = cache();
        let hub = dir.path().join("hub");
        let place = hub.join(format!("models--org--name{moved}"));
        fs::rename(&place, hub.join("elsewhere")).unwrap();
        symlink(hub.join("elsewhere"), place).unwrap();
        let text = problem(pack_path(&dir, &snapshot, &options()));
        assert!(text.contains("link out of the model directory"), "{text}");
    }
}

#[test]
fn k20_a_repository_says_which_snapshot_to_take() {
    let (dir, snapshot) = cache();
    let repository = snapshot.join("../..").canonicalize().unwrap();
    fs::create_dir(repository.join("snapshots/fedcba")).unwrap();
    for options in [options(), dereference()] {
        let error = pack_path(&dir, &repository, &options).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        let shown = repository.display();
        assert_eq!(
            error.to_string(),
            format!(
                "{shown} is the cache of a repository, not a model; pack a snapshot of it: \
                 {shown}/snapshots/{REVISION} (main), {shown}/snapshots/fedcba"
            )
        );
    }
    assert!(!dir.path().join("out.tar").exists());
}

#[test]
fn k20_any_link_is_followed_when_it_is_asked_for() {
    let dir = scratch(&[("a", b"1")]);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b"), "2").unwrap();
    let model = model_of(&dir);
    symlink("../outside/b", model.join("relative")).unwrap();
    symlink(outside.canonicalize().unwrap(), model.join("absolute")).unwrap();
    assert!(problem(pack_in(dir.path(), &options())).contains("--dereference follows it"));
    pack_path(&dir, &model, &dereference()).unwrap();
    assert_eq!(
        packed(&dir),
        [of("a", "1"), of("absolute/b", "2"), of("relative", "2")]
    );
    // What is nothing that could be packed, still is not.
    for (target, rule) in [
        ("..", "is a symbolic link to a directory that contains it"),
        ("/", "is a symbolic link to a directory that contains it"),
        ("/dev/null", "is a device"),
        ("nowhere", "leads nowhere"),
        ("link", "leads in a circle"),
    ] {
        symlink(target, model.join("link")).unwrap();
        let text = problem(pack_path(&dir, &model, &dereference()));
        assert!(text.contains(rule), "{target}: {text}");
        fs::remove_file(model.join("link")).unwrap();
    }
    // A secret is one by any way.
    symlink("../outside/b", model.join(".env")).unwrap();
    assert!(problem(pack_path(&dir, &model, &dereference())).contains("looks like a secret"));
}
