//! What earlier versions wrote and answered, in `tests/data/golden/`: every later version reads it.
//!
//! The fixtures are never made anew. Where a later version on purpose writes something else, its
//! archive is added beside the old one, which stays.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::{self as support, workspace};
#[path = "../support/plain.rs"]
#[allow(dead_code)]
mod plain;

mod archives;
mod indexes;
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The path of a fixture.
fn golden(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    data.join(name)
}

fn golden_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

/// A later document may say more than a golden one, never less or something else. Of warnings there
/// may be more.
#[track_caller]
fn assert_still_says(later: &Value, golden: &Value, at: &str) {
    match (later, golden) {
        (Value::Object(later), Value::Object(golden)) => {
            for (key, value) in golden.iter().filter(|(key, _)| *key != "warnings") {
                let said = later.get(key);
                let said = said.unwrap_or_else(|| panic!("{at}: nothing is said of {key}"));
                assert_still_says(said, value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(later), Value::Array(golden)) => {
            assert_eq!(later.len(), golden.len(), "{at}");
            for (number, (later, golden)) in later.iter().zip(golden).enumerate() {
                assert_still_says(later, golden, &format!("{at}[{number}]"));
            }
        }
        _ => assert_eq!(later, golden, "{at}"),
    }
}
