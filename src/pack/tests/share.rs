//! One content is stored once, whatever names it has.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::model::{Model, OpenOptions};

const SIZE: usize = 300_000;

/// What a model says of each of its files.
fn read_all(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let model = Model::open(archive, &OpenOptions::default()).unwrap();
    let files = model.files().map(|file| {
        let bytes = model.read_at(file.inode, 0, SIZE + 1).unwrap();
        (file.path.to_string(), bytes.to_vec())
    });
    files.collect()
}

#[test]
fn k27_links_hard_links_and_equal_files_are_stored_once() {
    let data = noise(1, SIZE);
    let mut other = data.clone();
    // Told apart by the last byte alone.
    *other.last_mut().unwrap() ^= 1;
    let dir = scratch(&[
        ("b/w.bin", &data),
        ("b/other.bin", &other),
        ("c/equal.bin", &data),
    ]);
    let model = model_of(&dir);
    symlink("b/w.bin", model.join("z")).unwrap();
    symlink("b", model.join("d")).unwrap();
    fs::hard_link(model.join("b/w.bin"), model.join("c/hard.bin")).unwrap();
    fs::create_dir(model.join("a")).unwrap();
    symlink("../b/other.bin", model.join("a/up")).unwrap();

    let packed = pack_in(dir.path(), &options()).unwrap();
    let archive = dir.path().join("out.tar");
    let size = fs::metadata(&archive).unwrap().len();
    assert!(size < 2 * SIZE as u64 + 60_000, "{size} bytes");
    let expected: BTreeMap<String, Vec<u8>> = [
        ("a/up", &other),
        ("b/other.bin", &other),
        ("b/w.bin", &data),
        ("c/equal.bin", &data),
        ("c/hard.bin", &data),
        ("d/other.bin", &other),
        ("d/w.bin", &data),
        ("z", &data),
    ]
    .into_iter()
    .map(|(path, data)| (path.to_string(), data.clone()))
    .collect();
    assert_eq!((packed.files, packed.file_bytes), (8, 8 * SIZE as u64));
    assert!(read_all(&archive) == expected);

    let before = fs::read(&archive).unwrap();
    fs::remove_file(&archive).unwrap();
    pack_in(dir.path(), &options()).unwrap();
    assert!(before == fs::read(&archive).unwrap(), "reproducible");
}

#[test]
fn k27_what_differs_in_more_than_its_name_is_not_shared() {
    let data = noise(2, SIZE);
    let small = b"small".as_slice();
    let dir = scratch(&[("a", &data), ("run", &data), ("s", small), ("t", small)]);
    let run = model_of(&dir).join("run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let packed = pack_in(dir.path(), &options()).unwrap();
    assert_eq!(packed.layers.len(), 4);
    let model = Model::open(dir.path().join("out.tar"), &OpenOptions::default()).unwrap();
    for (path, mode) in [("a", 0o444), ("run", 0o555), ("s", 0o444)] {
        assert_eq!(model.find(path).unwrap().mode, mode, "{path}");
    }
    // Nobody's layer is a link.
    let tables = packed.layers.iter().filter(|layer| {
        layer
            .annotations
            .contains_key(crate::oci::annotations::CHUNKS)
    });
    assert_eq!(tables.count(), 4);
}

/// A link that leads too far is no link: nobody could read it.
#[test]
fn k27_what_a_link_cannot_reach_is_packed() {
    let data = noise(3, 8 << 10);
    let far = format!(
        "{}{}",
        format!("{}/", "a".repeat(250)).repeat(15),
        "a".repeat(250)
    );
    let deep = format!("{}twin", "z/".repeat(60));
    let dir = scratch(&[(&far, &data), (&deep, &data)]);
    pack_in(dir.path(), &options()).unwrap();
    let found = read_all(&dir.path().join("out.tar"));
    assert_eq!(found.len(), 2);
    assert!(found.values().all(|bytes| *bytes == data));
}
