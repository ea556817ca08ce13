//! Links between the files of a model: a link that stays inside is served as the file it leads to,
//! so that the tree itself has none.

use std::collections::HashMap;

use crate::layer::LinkTarget;
use crate::limits;

/// What stands at a path.
pub(super) enum Node<'a> {
    /// A file, by number.
    File(usize),
    /// A link.
    Link(&'a LinkTarget),
}

/// The file that the link at `path` leads to, by number.
///
/// # Errors
/// A clause that says why it leads to none: it is absolute, leaves the model, dangles, or goes in
/// circles.
pub(super) fn follow(
    nodes: &HashMap<&str, Node<'_>>,
    path: &str,
    target: &LinkTarget,
) -> Result<usize, String> {
    let (mut path, mut target) = (path.to_string(), target);
    for _ in 0..limits::MAX_LINKS {
        path = resolve(&path, target)?;
        match nodes.get(path.as_str()) {
            Some(Node::File(number)) => return Ok(*number),
            Some(Node::Link(next)) => target = next,
            None => {
                return Err(format!(
                    "is a link to \"{path}\", which is no file of the model"
                ));
            }
        }
    }
    Err("is a link that leads in a circle".into())
}

/// The path, from the root of the model, that the link at `path` names.
fn resolve(path: &str, target: &LinkTarget) -> Result<String, String> {
    if target.path.starts_with('/') {
        return Err(format!(
            "is a link to the absolute path \"{}\"",
            target.path
        ));
    }
    let mut parts: Vec<&str> = match path.rsplit_once('/') {
        Some((directory, _)) if target.symbolic => directory.split('/').collect(),
        _ => Vec::new(),
    };
    for part in target.path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(format!(
                        "is a link to \"{}\", outside of the model",
                        target.path
                    ));
                }
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(path: &str) -> LinkTarget {
        LinkTarget {
            path: path.into(),
            symbolic: true,
        }
    }

    /// `a/file`, and the given links; where does `from` lead?
    fn lead(links: &[(&str, &str)], from: &str) -> Result<usize, String> {
        let targets: Vec<(&str, LinkTarget)> = links
            .iter()
            .map(|(path, target)| (*path, link(target)))
            .collect();
        let mut nodes = HashMap::from([("a/file", Node::File(7))]);
        nodes.extend(
            targets
                .iter()
                .map(|(path, target)| (*path, Node::Link(target))),
        );
        let Node::Link(target) = nodes[from] else {
            panic!("{from} is no link")
        };
        follow(&nodes, from, target)
    }

    #[test]
    fn l7_links_that_stay_inside_lead_to_their_file() {
        for (path, target) in [
            ("x", "a/file"),
            ("x", "./a//file"),
            ("a/x", "file"),
            ("a/b/x", "../file"),
            ("b/x", "../a/file"),
        ] {
            assert_eq!(lead(&[(path, target)], path), Ok(7), "{path} -> {target}");
        }
        assert_eq!(
            lead(&[("x", "y"), ("y", "b/z"), ("b/z", "../a/file")], "x"),
            Ok(7)
        );
        let hard = LinkTarget {
            path: "a/file".into(),
            symbolic: false,
        };
        let nodes = HashMap::from([("a/file", Node::File(7)), ("c/hard", Node::Link(&hard))]);
        assert_eq!(follow(&nodes, "c/hard", &hard), Ok(7));
    }

    #[test]
    fn l7_links_that_leave_dangle_or_circle_lead_nowhere() {
        for (target, why) in [
            ("/etc/passwd", "absolute"),
            ("../a/file", "outside"),
            ("a/../../a/file", "outside"),
            ("nothing", "no file"),
            ("a", "no file"),
            ("", "no file"),
            ("x", "circle"),
        ] {
            let error = lead(&[("x", target)], "x").unwrap_err();
            assert!(error.contains(why), "{target}: {error}");
        }
        assert!(
            lead(&[("x", "y"), ("y", "x")], "x")
                .unwrap_err()
                .contains("circle")
        );
    }
}
