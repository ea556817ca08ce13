//! The layers of the code, as `src/lib.rs` draws them, hold in every file of `src/`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Layers that are one thing in several files: the vocabulary and the binary.
const UNITED_LEVELS: [u32; 2] = [1, 9];

/// Crates and items that only one part of the code knows: (what, where).
const CONFINED: [(&str, &[&str]); 9] = [
    ("fuser", &["mount"]),
    ("libc::E", &["mount"]),
    ("clap", &["main", "cli", "commands"]),
    ("anyhow", &["main", "cli", "commands"]),
    ("indicatif", &["main", "cli", "commands"]),
    ("env_logger", &["main", "cli", "commands"]),
    ("ureq", &["source"]),
    ("rustls", &["source"]),
    ("rustls_native_certs", &["source"]),
];

const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One file of `src/`, without comments and unit tests.
struct Source {
    /// Its path below `src/`.
    path: String,
    /// The module of the crate that it belongs to: `oci` for `oci/json.rs`.
    module: String,
    /// How many `super` lead from it to the crate's root.
    depth: usize,
    code: String,
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut sources = Vec::new();
    for file in rust_files(&src) {
        let path = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_string();
        let mut parts: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        if parts.contains(&"tests") {
            continue;
        }
        sources.push(Source {
            module: parts[0].to_string(),
            depth: if path == "lib.rs" || path == "main.rs" {
                0
            } else {
                parts.len()
            },
            code: code_of(&fs::read_to_string(&file).unwrap()),
            path,
        });
    }
    assert!(sources.len() > 20, "the files of src/ are found");
    sources
}

/// The text without whole-line comments, and without the unit tests that end a file.
fn code_of(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod tests {") {
        Some(end) => &text[..end],
        None => text,
    };
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The level of each module, out of the diagram in the crate's documentation.
fn levels() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let diagram = text.split("//! ```text").nth(1).unwrap();
    let diagram = diagram.split("//! ```").next().unwrap();
    let mut levels = BTreeMap::new();
    let mut level = 9;
    for line in diagram.lines() {
        let line = line.trim_start_matches("//!");
        // A row that continues the one above has no number.
        let last = line.split(' ').next_back().unwrap_or_default();
        level = last.parse().unwrap_or(level);
        for name in line.split([' ', ',', '/']) {
            let exists = |path: String| root().join("src").join(path).exists();
            if !name.is_empty()
                && (exists(format!("{name}.rs")) || exists(format!("{name}/mod.rs")))
            {
                levels.insert(name.to_string(), level);
            }
        }
    }
    assert!(levels.len() > 10, "the diagram of src/lib.rs is found");
    levels
}

/// What the crate's root re-exports: item to module.
fn re_exports() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut items = BTreeMap::new();
    for statement in statements(&text, "pub use ") {
        for path in expand(&statement) {
            let (module, _) = path.split_once("::").unwrap_or((&path, ""));
            let item = path.rsplit("::").next().unwrap();
            items.insert(item.to_string(), module.to_string());
        }
    }
    items
}

/// The texts between each `start` and the `;` that follows.
fn statements(text: &str, start: &str) -> Vec<String> {
    text.split(start)
        .skip(1)
        .filter_map(|rest| rest.split_once(';'))
        .map(|(statement, _)| statement.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The paths of a use tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let paths = expand_named(tree).into_iter();
    paths
        .map(|path| {
            path.split(" as ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_string()
        })
        .collect()
}

/// The same with the names that they get, as in `a::b as c`.
fn expand_named(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.to_string()];
    };
    let inner = rest.trim_end().trim_end_matches('}');
    // What was cut off too much: the brackets that the branches themselves close.
    let open = inner.matches('{').count();
    let inner = format!(
        "{inner}{}",
        "}".repeat(open - inner.matches('}').count().min(open))
    );
    let mut branches = vec![String::new()];
    let mut depth = 0;
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(String::new());
                continue;
            }
            _ => {}
        }
        branches.last_mut().unwrap().push(c);
    }
    branches
        .iter()
        .filter(|branch| !branch.trim().is_empty())
        .flat_map(|branch| expand_named(branch))
        .map(|path| format!("{}{path}", prefix.trim()))
        .collect()
}

/// The modules and items of the crate's root that a file names, in `use` and in paths.
fn names_used(source: &Source) -> BTreeSet<String> {
    let to_root = match source.module.as_str() {
        // The binary knows the library by its name, and its own modules as `crate`.
        "main" | "cli" | "commands" => vec!["crate::".to_string(), "modeloci::".to_string()],
        _ => vec!["crate::".to_string(), "super::".repeat(source.depth.max(1))],
    };
    let mut names = BTreeSet::new();
    for start in &to_root {
        for (at, _) in source.code.match_indices(start.as_str()) {
            let before = source.code[..at].chars().next_back();
            // `self::super::`, `pub(crate)`, or a longer chain of `super`.
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &source.code[at + start.len()..];
            let end = match rest.strip_prefix('{') {
                Some(_) => rest.find(';').unwrap_or(rest.len()),
                None => rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len()),
            };
            for path in expand(&rest[..end]) {
                names.insert(path.split("::").next().unwrap().trim().to_string());
            }
        }
    }
    names
}

/// Which file imports which, by their paths below `src/`: through `use`, and through paths in the code.
struct Imports<'a> {
    /// By crate (the binary's or the library's) and module.
    modules: BTreeMap<Vec<&'a str>, &'a Source>,
}

const BINARY: [&str; 3] = ["main", "cli", "commands"];

impl<'a> Imports<'a> {
    fn of(sources: &'a [Source]) -> Imports<'a> {
        let modules = sources.iter().map(|source| (module_of(source), source));
        Imports {
            modules: modules.collect(),
        }
    }

    fn all(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let edges = self.modules.iter().map(|(module, source)| {
            let mut used: BTreeSet<_> = paths_in(&source.code)
                .iter()
                .filter_map(|path| self.file(module, path, 0))
                .collect();
            used.remove(source.path.as_str());
            (source.path.as_str(), used)
        });
        edges.collect()
    }

    /// The file that has what a path means in a module; `None` for what is not of this crate. An item
    /// that is only passed on is where it comes from.
    fn file(&self, module: &[&'a str], path: &str, passed_on: usize) -> Option<&'a str> {
        let mut at = module.to_vec();
        let mut segments = path.split("::").peekable();
        match *segments.peek()? {
            "crate" => at.truncate(1),
            "self" | "super" => {}
            first => {
                // A child of the module, or another crate.
                let mut child = at.clone();
                child.push(self.name(&at, first)?);
                at = child;
                segments.next();
            }
        }
        while let Some(segment) = segments.peek() {
            match *segment {
                "crate" | "self" => {}
                "super" => drop(at.pop()),
                name => match self.name(&at, name) {
                    Some(name) => at.push(name),
                    None => break,
                },
            }
            segments.next();
        }
        let source = self.modules.get(&at)?;
        let Some(item) = segments.next().filter(|_| passed_on < 8) else {
            return Some(&source.path);
        };
        let from = statements(&source.code, "use ").into_iter();
        let mut from = from.flat_map(|tree| uses(&tree));
        let rest: Vec<_> = segments.collect();
        let origin = from.find(|(_, name)| name == item).and_then(|(path, _)| {
            let path = [&[path.as_str()], rest.as_slice()].concat().join("::");
            self.file(&at, &path, passed_on + 1)
        });
        origin.or(Some(&source.path))
    }

    /// The name of a module in another one, if there is such.
    fn name(&self, module: &[&'a str], name: &str) -> Option<&'a str> {
        let within =
            |known: &&Vec<&'a str>| known.len() == module.len() + 1 && known.starts_with(module);
        let mut names = self
            .modules
            .keys()
            .filter(within)
            .map(|known| *known.last().unwrap());
        names.find(|known| *known == name)
    }
}

/// Crate and module of a file: `lib`, `mount`, `at` for `mount/at/mod.rs`.
fn module_of(source: &Source) -> Vec<&str> {
    let root = match BINARY.contains(&source.module.as_str()) {
        true => "main",
        false => "lib",
    };
    let parts = source.path.trim_end_matches(".rs").split('/');
    let parts = parts.filter(|part| !["mod", "main", "lib"].contains(part));
    std::iter::once(root).chain(parts).collect()
}

/// What a use tree brings in: the path of each, and the name that it gets.
fn uses(tree: &str) -> Vec<(String, String)> {
    let named = expand_named(tree).into_iter();
    named
        .map(|path| {
            let (path, name) = match path.split_once(" as ") {
                Some((path, name)) => (path.trim(), name.trim()),
                None => (path.as_str(), path.rsplit("::").next().unwrap_or_default()),
            };
            match path.strip_suffix("::self") {
                Some(path) if name == "self" => (
                    path.into(),
                    path.rsplit("::").next().unwrap_or_default().into(),
                ),
                Some(path) => (path.into(), name.into()),
                None => (path.into(), name.into()),
            }
        })
        .collect()
}

/// All paths that a file imports or names; not those that only say who may see something.
fn paths_in(code: &str) -> BTreeSet<String> {
    let code = &code.replace("pub(in ", "pub(in::");
    let imported = statements(code, "use ").into_iter();
    let mut paths: BTreeSet<_> = imported
        .flat_map(|tree| uses(&tree))
        .map(|(path, _)| path)
        .collect();
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !word(c)).filter(|text| text.contains("::"));
    // What ends in colons goes on with a bracket, and is one of the trees above.
    let whole = words.filter(|text| !text.ends_with(':'));
    paths.extend(whole.map(str::to_string));
    paths
}

/// Files that import each other in a circle, each set once.
fn circles(imports: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &str| {
        let mut found = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for &used in imports.get(file).into_iter().flatten() {
                if found.insert(used) {
                    next.push(used);
                }
            }
        }
        found
    };
    let all: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|&file| (file, reached(file))).collect();
    let mut sets = BTreeSet::new();
    for (&file, found) in &all {
        if found.contains(file) {
            let back = |other: &&&str| all.get(**other).is_some_and(|set| set.contains(file));
            sets.insert(
                found
                    .iter()
                    .filter(back)
                    .map(|file| file.to_string())
                    .collect(),
            );
        }
    }
    sets.into_iter().collect()
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let sources = sources();
    let circles = circles(&Imports::of(&sources).all());
    assert!(circles.is_empty(), "\n{circles:#?}");
}

#[test]
fn circles_are_found_through_all_that_names_a_file() {
    let found = |files: &[(&str, &str)]| {
        let source = |(path, code): &(&str, &str)| Source {
            path: path.to_string(),
            module: path.split(['/', '.']).next().unwrap().to_string(),
            depth: 0,
            code: code.to_string(),
        };
        let sources: Vec<_> = files.iter().map(source).collect();
        let circles = circles(&Imports::of(&sources).all());
        circles
            .iter()
            .map(|c| c.iter().cloned().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let parent = (
        "a/mod.rs",
        "mod b;\nmod c;\npub use c::Thing;\nconst X: u32 = 1;\n",
    );
    // Through a name that the parent only passes on, and not to the parent.
    let one_way = [
        parent,
        ("a/b.rs", "use super::Thing;\n"),
        ("a/c.rs", "struct Thing;\n"),
    ];
    assert_eq!(found(&one_way), [""; 0]);
    for (b, c) in [
        (
            "use super::Thing;\n",
            "use crate::a::b::{\n    self, B as Bee,\n};\n",
        ),
        ("use super::c::{self};\n", "fn f() { crate::a::b::run() }\n"),
        ("use super::{c};\n", "fn f() { super::b::run() }\n"),
    ] {
        let files = [parent, ("a/b.rs", b), ("a/c.rs", c)];
        assert_eq!(found(&files), ["a/b.rs a/c.rs"], "{b}{c}");
    }
    // What the parent itself has.
    let files = [parent, ("a/c.rs", "use super::X;\n")];
    assert_eq!(found(&files), ["a/c.rs a/mod.rs"]);
    // The binary's modules are not the library's, and other crates are nobody's.
    let files = [
        ("commands/mod.rs", "mod a;\n"),
        ("commands/a.rs", "use modeloci::cli::A;\n"),
        ("cli.rs", "use crate::commands::a;\n"),
    ];
    assert_eq!(found(&files), [""; 0]);
}

#[test]
fn imports_point_downward() {
    let levels = levels();
    let re_exports = re_exports();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.module != "lib") {
        let Some(&own) = levels.get(&source.module) else {
            wrong.push(format!(
                "{} has no place in the diagram of src/lib.rs",
                source.path
            ));
            continue;
        };
        for name in names_used(source) {
            let module = re_exports.get(&name).unwrap_or(&name);
            if *module == source.module || module == "self" || module == "super" {
                continue;
            }
            let Some(&level) = levels.get(module) else {
                wrong.push(format!(
                    "{} uses {name}, which the diagram does not show",
                    source.path
                ));
                continue;
            };
            let united = level == own && UNITED_LEVELS.contains(&level);
            if level >= own && !united {
                wrong.push(format!(
                    "{} (level {own}) uses {name} (level {level})",
                    source.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn interfaces_to_the_outside_stay_in_their_module() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (what, modules) in CONFINED {
            let found = source.code.match_indices(what).any(|(at, _)| {
                let mut around = source.code[..at].chars().rev();
                let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let after = source.code[at + what.len()..].chars().next();
                !word(around.next()) && (what.contains(':') || !word(after))
            });
            if found && !modules.contains(&source.module.as_str()) {
                wrong.push(format!(
                    "{} uses {what}, which belongs to {modules:?}",
                    source.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Where functions are that may take a path.
const WITH_PATHS: &[&str] = &[
    "std::fs::",
    "std::os::unix::fs::",
    "std::env::set_",
    "tempfile::",
    "landlock::",
    "libc::",
    "rustix::fs::",
    "rustix::mount::",
];

/// What is there that takes none: it has a descriptor, or no file at all.
const WITHOUT_PATH: &[&str] = &[
    "libc::close",
    "libc::close_range",
    "libc::dup2",
    "libc::fcntl",
    "libc::fork",
    "libc::malloc_trim",
    "libc::mallopt",
    "libc::pthread_sigmask",
    "libc::raise",
    "libc::sigaction",
    "libc::sigaddset",
    "libc::sigemptyset",
    "libc::sigfillset",
    "libc::signalfd",
    "libc::signalfd_siginfo",
    "libc::sigwait",
    "libc::sync_file_range",
    // Of what an attacker would try, in test builds alone.
    "libc::syscall",
    "rustix::fs::copy_file_range",
    "rustix::fs::fadvise",
    "rustix::fs::fchmod",
    "rustix::fs::fchown",
    "rustix::fs::fdatasync",
    "rustix::fs::flock",
    "rustix::fs::fstat",
    "rustix::fs::fstatfs",
    "rustix::fs::fstatvfs",
    "rustix::fs::fsync",
    "rustix::fs::ftruncate",
    "rustix::fs::futimens",
    "rustix::fs::major",
    "rustix::fs::makedev",
    "rustix::fs::memfd_create",
    "rustix::fs::minor",
    "rustix::fs::syncfs",
    "rustix::mount::fsconfig_create",
    "rustix::mount::fsconfig_set_flag",
    "rustix::mount::fsconfig_set_string",
    "rustix::mount::fsmount",
    "rustix::mount::fsopen",
];

/// Functions with paths, by clippy.toml.
fn disallowed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("clippy.toml")).unwrap();
    let paths = text.split("{ path = \"").skip(1);
    paths
        .map(|rest| rest.split('"').next().unwrap().to_string())
        .collect()
}

/// The functions of other crates that a file names, by their whole paths; types begin with a capital
/// letter, and are left to clippy.
fn functions_of_others(code: &str) -> BTreeSet<String> {
    let imported = statements(code, "use ").into_iter();
    let imported: BTreeMap<String, String> = imported
        .flat_map(|tree| uses(&tree))
        .map(|(path, name)| (name, path))
        .collect();
    let whole = |path: String| {
        let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
        match imported.get(first) {
            Some(begin) if rest.is_empty() => begin.clone(),
            Some(begin) => format!("{begin}::{rest}"),
            None => path,
        }
    };
    let is_function = |path: &String| {
        let name = path.rsplit("::").next().unwrap_or_default();
        let is_type_of_c = name.starts_with("c_") || name.ends_with("_t");
        !is_type_of_c
            && name.starts_with(|c: char| c.is_lowercase())
            && !path
                .split("::")
                .any(|part| part.starts_with(char::is_uppercase))
    };
    let paths = paths_in(code).into_iter().map(whole);
    paths.filter(is_function).collect()
}

/// A call that takes a path is in clippy.toml before the first one can be made.
#[test]
fn functions_that_may_take_a_path_are_known() {
    let disallowed = disallowed();
    let mut wrong = Vec::new();
    for source in sources() {
        for path in functions_of_others(&source.code) {
            let may = WITH_PATHS.iter().any(|begin| path.starts_with(begin));
            let known = disallowed.contains(&path) || WITHOUT_PATH.contains(&path.as_str());
            if may && !known {
                wrong.push(format!("{}: {path}", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "neither in clippy.toml, nor among those without a path:\n{}",
        wrong.join("\n")
    );
    // The list above is not a way around.
    let both = WITHOUT_PATH
        .iter()
        .filter(|path| disallowed.contains(**path));
    assert_eq!(both.count(), 0);
}

#[test]
fn functions_are_found_by_any_name() {
    let found = |code: &str| {
        functions_of_others(code)
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    };
    for code in [
        "fn f() { rustix::fs::open(x) }",
        "use rustix::fs;\nfn f() { fs::open(x) }",
        "use rustix::fs::{Mode, open};\nfn f() { open(x) }",
        "use rustix::fs as files;\nfn f() { files::open(x) }",
    ] {
        let found = found(code);
        assert!(
            found.split(' ').any(|path| path == "rustix::fs::open"),
            "{found}"
        );
    }
    assert_eq!(
        found("use std::fs::File;\nfn f(file: std::fs::File) {}"),
        ""
    );
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests"] {
        for file in rust_files(&root().join(dir)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > MAX_LINES {
                wrong.push(format!(
                    "{} has {lines} lines, the limit is {MAX_LINES}",
                    file.display()
                ));
            }
            let stem = file.file_stem().unwrap().to_str().unwrap();
            if ["utils", "util", "helpers", "common"].contains(&stem) {
                wrong.push(format!(
                    "{}: name the module after what it is",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn use_trees_are_read() {
    assert_eq!(expand("a::b"), ["a::b"]);
    assert_eq!(expand("a::{b, c as d}"), ["a::b", "a::c"]);
    assert_eq!(
        expand("{a::{b, c::{d, e}}, f}"),
        ["a::b", "a::c::d", "a::c::e", "f"]
    );
    let source = |code: &str| Source {
        path: "oci/json.rs".into(),
        module: "oci".into(),
        depth: 2,
        code: code.into(),
    };
    let used = |code: &str| {
        names_used(&source(code))
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        used("use crate::{memory::A,\n tar::{B, C}};\nfn x() -> crate::Error"),
        "Error memory tar"
    );
    assert_eq!(
        used("use super::super::mount::X; use super::fields;"),
        "mount"
    );
}
