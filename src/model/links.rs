//! Links between the files of a model: a link that stays inside is served as the file it leads to,
//! so that the tree itself has none.

use std::collections::HashMap;
use std::rc::Rc;

use crate::error::Result;
use crate::layer::LinkTarget;
use crate::limits;
use crate::memory::effort::Effort;
use crate::printable::shown;

/// What stands at a path.
pub(super) enum Node<'a> {
    /// A file, by number.
    File(usize),
    /// A link, by number.
    Link(usize, &'a LinkTarget),
}

/// Where a link leads: a file, by number, and over how many links; or a clause that says why to none.
type End = Result<(usize, usize), Rc<str>>;

/// The links of a model. Each is followed once, however many lead to it.
pub(super) struct Links<'a> {
    nodes: HashMap<&'a str, Node<'a>>,
    /// Where those lead that were followed, by their numbers.
    ends: HashMap<usize, End>,
    effort: &'a Effort,
}

impl<'a> Links<'a> {
    pub(super) fn among(nodes: HashMap<&'a str, Node<'a>>, effort: &'a Effort) -> Links<'a> {
        Links {
            nodes,
            ends: HashMap::new(),
            effort,
        }
    }

    /// The file that link `number` at `path` leads to, by number. The inner error is a clause that says
    /// why it leads to none: it is absolute, leaves the model, dangles, or goes in circles.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it takes too much effort.
    pub(super) fn follow(
        &mut self,
        mut number: usize,
        path: &'a str,
        target: &'a LinkTarget,
    ) -> Result<Result<usize, Rc<str>>> {
        let (mut path, mut target) = (path, target);
        let mut followed = Vec::new();
        let mut end: End = loop {
            if let Some(end) = self.ends.get(&number) {
                break end.clone();
            }
            // Of a link that is met again before it was followed to its end.
            let circle = Err("is a link that leads in a circle".into());
            self.ends.insert(number, circle);
            followed.push(number);
            self.effort.spend((path.len() + target.path.len()) as u64)?;
            let next = match resolve(path, target) {
                Ok(next) => next,
                Err(problem) => break Err(problem.into()),
            };
            match self.nodes.get_key_value(next.as_str()) {
                Some((_, Node::File(file))) => break Ok((*file, 0)),
                Some((at, Node::Link(link, leads))) => (number, path, target) = (*link, at, leads),
                None => {
                    let next = shown(&next);
                    let problem = format!("is a link to \"{next}\", which is no file of the model");
                    break Err(problem.into());
                }
            }
        };
        for link in followed.into_iter().rev() {
            end = match end {
                Ok((_, limits::MAX_LINKS..)) => {
                    Err("is a link that leads over too many others".into())
                }
                Ok((file, links)) => Ok((file, links + 1)),
                dead => dead,
            };
            self.ends.insert(link, end.clone());
        }
        Ok(end.map(|(file, _)| file))
    }
}

/// The path, from the root of the model, that the link at `path` names.
fn resolve(path: &str, target: &LinkTarget) -> Result<String, String> {
    let named = || shown(&target.path);
    if target.path.starts_with('/') {
        return Err(format!("is a link to the absolute path \"{}\"", named()));
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
                        named()
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
        for (number, (path, target)) in targets.iter().enumerate() {
            nodes.insert(path, Node::Link(number, target));
        }
        let Node::Link(number, target) = nodes[from] else {
            panic!("{from} is no link")
        };
        let effort = Effort::default();
        let mut links = Links::among(nodes, &effort);
        let end = links.follow(number, from, target).unwrap();
        end.map_err(|problem| problem.to_string())
    }

    /// Links `0` to `links` in a chain, each to the next and the last to `a/file`, with targets of so many
    /// bytes; then as many others as wanted that lead to the first.
    fn chain(effort: &Effort, links: usize, bytes: usize, others: usize) -> Result<Vec<bool>> {
        let padded = |path: String| link(&("./".repeat(bytes / 2) + &path));
        let mut targets: Vec<(String, LinkTarget)> = (0..links)
            .map(|n| (n.to_string(), padded((n + 1).to_string())))
            .collect();
        targets[links - 1].1 = padded("a/file".into());
        targets.extend((0..others).map(|n| (format!("other{n}"), link("0"))));
        let mut nodes = HashMap::from([("a/file", Node::File(7))]);
        for (number, (path, target)) in targets.iter().enumerate() {
            nodes.insert(path, Node::Link(number, target));
        }
        let mut all = Links::among(nodes, effort);
        // Those that lead to the chain come first.
        let numbers = (links..links + others).chain(0..links);
        numbers
            .map(|n| Ok(all.follow(n, &targets[n].0, &targets[n].1)? == Ok(7)))
            .collect()
    }

    #[test]
    fn l14_a_chain_of_links_is_followed_once_whatever_leads_to_it() {
        let effort = Effort::default();
        let work = 39 * (4_000 + 20) + 10_000 * 20;
        effort.allow(work);
        let found = chain(&effort, 39, 4_000, 10_000).unwrap();
        assert!(found.iter().all(|leads| *leads));
        let error = chain(&effort, 39, 4_000, 10_000).unwrap_err();
        assert!(
            error.to_string().contains("the limit for a manifest"),
            "{error}"
        );
    }

    #[test]
    fn l7_a_chain_is_as_long_as_linux_follows() {
        let found = chain(&Effort::default(), limits::MAX_LINKS + 2, 0, 0).unwrap();
        let dead = found.iter().take_while(|leads| !**leads).count();
        assert_eq!(dead, 2);
        assert!(found[2..].iter().all(|leads| *leads));
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
        let nodes = HashMap::from([("a/file", Node::File(7)), ("c/hard", Node::Link(0, &hard))]);
        let effort = Effort::default();
        let mut links = Links::among(nodes, &effort);
        assert_eq!(links.follow(0, "c/hard", &hard).unwrap(), Ok(7));
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
