//! The tables of `docs/json.md`, to compare with what commands print.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Fields of a document, and their types.
pub type Fields = BTreeMap<String, String>;

/// The tables below these headings, as one.
pub fn fields(headings: &[&str]) -> Fields {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut all = Fields::new();
    for heading in headings {
        let section = text.split("\n#").find(|section| {
            let title = section.lines().next().unwrap_or_default();
            title.trim_start_matches(['#', ' ']) == *heading
        });
        let section = section.unwrap_or_else(|| panic!("no section {heading}"));
        let before = all.len();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`').to_string();
            assert!(all.insert(name, cells[2].to_string()).is_none(), "{row}");
            assert!(!cells[3].is_empty(), "{row}");
        }
        assert!(all.len() > before, "{heading}");
    }
    all
}

/// The document has exactly these fields, each of its type.
#[track_caller]
pub fn assert_documented(document: &Value, fields: &Fields) {
    let document = document.as_object().unwrap();
    let names: Vec<&String> = document.keys().collect();
    let documented: Vec<&String> = fields.keys().collect();
    let sorted = {
        let mut names = names.clone();
        names.sort();
        names
    };
    assert_eq!(sorted, documented);
    for (name, value) in document {
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let mut types = fields[name].split(" or ");
        // An integer is a number, too.
        assert!(
            types.any(|t| t == is || (t, is) == ("number", "integer")),
            "{name} is {is}, documented is {}",
            fields[name]
        );
    }
}
