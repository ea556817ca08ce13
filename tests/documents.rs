//! What the documents say of the repository is so: links lead somewhere, tests have their rows.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, by their paths below the root.
fn documents() -> Vec<String> {
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(root().join(dir)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages = names.filter(|name| name.ends_with(".md"));
        pages.map(|name| format!("{dir}{name}")).collect()
    };
    let found = [names(""), names("docs/")].concat();
    assert!(found.len() > 10, "{found:?}");
    found
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !fence && !code
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    // What is marked as code is no link.
    let text: String = prose.split('`').step_by(2).collect();
    let targets = text.split("](").skip(1);
    targets
        .map(|rest| rest.split_once(')').unwrap().0.trim().to_string())
        .collect()
}

/// The anchors of a page's headings, as GitHub and others make them of what is shown.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let mut found = BTreeSet::new();
    for heading in headings {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
            _ => None,
        });
        let anchor: String = kept.collect();
        let mut unique = anchor.clone();
        for n in 1.. {
            if found.insert(unique) {
                break;
            }
            unique = format!("{anchor}-{n}");
        }
    }
    found
}

/// What is wrong with the links of a page at `path`.
fn broken(path: &str, page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for link in links(page) {
        if link.starts_with("https://") {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = match file {
            "" => PathBuf::from(path),
            file => Path::new(path).parent().unwrap().join(file),
        };
        let inside = root()
            .join(&target)
            .canonicalize()
            .is_ok_and(|found| found.starts_with(root().canonicalize().unwrap()));
        if !inside {
            wrong.push(format!("{path}: {link}: there is no {}", target.display()));
        } else if !anchor.is_empty() {
            let there = match file {
                "" => anchors(page),
                _ => anchors(&read(&target)),
            };
            if !there.contains(anchor) {
                wrong.push(format!("{path}: {link}: no such heading"));
            }
        }
    }
    wrong
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut wrong = Vec::new();
    let mut all = 0;
    for path in documents() {
        let page = read(&path);
        all += links(&page).len();
        wrong.extend(broken(&path, &page));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(all > 50, "only {all} links were found");
}

#[test]
fn broken_links_are_found() {
    let page = "# A `b-c` (d)\n# A\n# A\n\
        [1](https://example.org/x) [2](json.md) [3](../LICENSE) [4](#a-b-c-d) [5](#a) [6](#a-1)\n\
        ```text\n[no](nowhere.md)\n# Not\n```\n`[no](nowhere.md)` [7](json.md#what---json-prints)\n";
    assert_eq!(links(page).len(), 7);
    assert_eq!(broken("docs/json.md", page), [""; 0]);
    for link in [
        "nowhere.md",
        "docs/json.md",
        "../../outside.md",
        "/etc/passwd",
        "#not",
        "#a-2",
        "json.md#nothing",
    ] {
        let page = format!("{page}[x]({link})\n");
        let wrong = broken("docs/json.md", &page);
        assert_eq!(wrong.len(), 1, "{link}: {wrong:?}");
    }
}

/// Every page is found from the first one.
#[test]
fn every_page_of_docs_is_linked_from_the_readme() {
    let linked: BTreeSet<String> = links(&read("README.md"))
        .into_iter()
        .map(|link| link.split('#').next().unwrap().to_string())
        .collect();
    for path in documents() {
        assert!(path == "README.md" || linked.contains(&path), "{path}");
    }
}

/// Files below `dir` whose names end so.
fn below(dir: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// The ids in the names of tests: what they begin with, as in `l10_l11_`.
fn ids_of_tests() -> BTreeSet<String> {
    let is_id = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or_default();
        let letter = first.chars().all(|c| c.is_ascii_lowercase());
        letter && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit())
    };
    let mut found = BTreeSet::new();
    for file in [below("tests", ".rs"), below("src", ".rs")].concat() {
        let code = fs::read_to_string(file).unwrap();
        let tests = code.split("#[test]\n").skip(1);
        for name in tests.filter_map(|test| Some(test.split_once("fn ")?.1.split_once('(')?.0)) {
            found.extend(
                name.split('_')
                    .take_while(|word| is_id(word))
                    .map(String::from),
            );
        }
    }
    found
}

/// `docs/bad-inputs.md` says what must happen to whatever a test's id names, and each row has a test.
#[test]
fn every_id_has_its_row_and_its_test() {
    let page = read("docs/bad-inputs.md");
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows: BTreeSet<String> = cells
        .flat_map(|(ids, _)| ids.split(", "))
        .filter(|id| id.ends_with(|c: char| c.is_ascii_digit()))
        .map(String::from)
        .collect();
    // A 0 is what belongs to a group and to no row.
    let tests: BTreeSet<String> = ids_of_tests()
        .into_iter()
        .filter(|id| &id[1..] != "0")
        .collect();
    let missing: Vec<_> = tests.difference(&rows).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let untested: Vec<_> = rows.difference(&tests).collect();
    assert!(untested.is_empty(), "without a test: {untested:?}");
}

/// The path itself, or one of the library's modules.
fn exists(path: &str) -> bool {
    ["", "src"]
        .iter()
        .any(|dir| root().join(dir).join(path).exists())
}

#[test]
fn sources_that_documents_name_exist() {
    let mut wrong = Vec::new();
    let mut all = 0;
    for path in documents() {
        let page = prose(&read(&path));
        for word in page.split('`').skip(1).step_by(2) {
            // CONTRIBUTING.md speaks of files to be.
            let source = word.ends_with(".rs") && !word.contains(char::is_whitespace);
            if source && !word.contains("NAME") {
                all += 1;
                if !exists(word) {
                    wrong.push(format!("{path}: {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(all > 30, "only {all} sources were found");
}

/// Nothing of the repository points outside of it, but for a specification with its owner's name.
#[test]
fn pages_that_the_code_names_exist() {
    let mut wrong = Vec::new();
    let mut all = 0;
    let dirs = ["src", "tests", "scripts", "benches", "fuzz"];
    let files = dirs.map(|dir| below(dir, "")).concat();
    for file in files {
        let Ok(code) = fs::read_to_string(&file) else {
            continue;
        };
        for line in code.lines().filter(|line| line.contains("docs/")) {
            let word = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
            let others = line.contains("git-lfs") || line.contains("ggml-org/ggml");
            for named in line.split(|c| !word(c)).filter(|w| w.starts_with("docs/")) {
                let Some(end) = named.find(".md") else {
                    continue;
                };
                all += 1;
                if !others && !exists(&named[..end + 3]) {
                    wrong.push(format!("{}: {named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(all > 10, "only {all} pages were found");
}
