//! The specification's worked example is what `pack` writes: docs/layer-format.md shows a whole
//! layer, and this test packs it.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;

use modeloci::oci::OciConfig;
use modeloci::pack::{self, Output, PackOptions};
use modeloci::{Algorithm, Model};

/// What stands between the first fence of the kind after `heading` and the fence that ends it.
fn fenced<'a>(page: &'a str, heading: &str, kind: &str) -> &'a str {
    let section = page.split_once(heading).unwrap().1;
    let block = section.split_once(&format!("```{kind}\n")).unwrap().1;
    block.split_once("```").unwrap().0
}

#[test]
fn the_worked_example_is_what_pack_writes() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/layer-format.md"));
    let page = page.unwrap();
    let heading = "## A whole layer, byte by byte";
    let expected: Vec<u8> = fenced(&page, heading, "text")
        .lines()
        .flat_map(|line| line.split_whitespace().skip(1))
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let annotations: serde_json::Value =
        serde_json::from_str(fenced(&page, heading, "json")).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("ex"), dir.path().join("ex.tar"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("hello.txt"), "hello, model\n").unwrap();
    let config = OciConfig {
        model_name: "ex".into(),
        version: "1".into(),
        framework: "none".into(),
        architecture: "none".into(),
        metadata: Default::default(),
    };
    let options = PackOptions {
        chunk_digest: Algorithm::Sha256,
        ..PackOptions::default()
    };
    let output = Output::File(archive.clone());
    let packed = pack::pack(&tree, &config, &output, &options, &|_, _| ()).unwrap();
    let layer = &packed.layers[0];
    assert_eq!(
        serde_json::to_value(&layer.annotations).unwrap(),
        annotations
    );

    let source = modeloci::source::open(&archive).unwrap();
    let mut found = vec![0; layer.size as usize];
    let blob = source.blob(&layer.digest, None).unwrap().unwrap();
    blob.read_exact_at(&mut found, 0).unwrap();
    assert!(
        found == expected,
        "the page shows another layer than pack writes"
    );

    let model = Model::open(&archive, &Default::default()).unwrap();
    let inode = model.find("hello.txt").unwrap().inode;
    assert_eq!(model.read_at(inode, 7, 100).unwrap(), "model\n");
}
