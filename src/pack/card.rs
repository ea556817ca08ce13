//! What a model card says: the front matter of a README, of which two fields are understood.
//!
//! It is YAML, of which people write the simple forms: `license: mit`, and `tags` as a list. What is
//! written otherwise is not understood, and nothing is made of it.

/// The fields of a card.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Card {
    pub license: Option<String>,
    pub tags: Vec<String>,
}

/// Longest value of a field.
const MAX_BYTES: usize = 256;
/// Most tags.
const MAX_TAGS: usize = 100;

/// Reads a README; an empty card when it has no front matter.
pub(super) fn parse(text: &str) -> Card {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return Card::default();
    }
    let front: Vec<&str> = lines.by_ref().take_while(|line| *line != "---").collect();
    let end = text
        .lines()
        .map(str::trim_end)
        .skip(1)
        .any(|line| line == "---");
    if !end {
        return Card::default();
    }
    let field = |name: &str| {
        let at = front.iter().position(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(':'))
        })?;
        let value = front.get(at)?.get(name.len() + 1..)?.trim();
        Some((value, front.get(at + 1..).unwrap_or_default()))
    };
    let list = |name: &str| -> Vec<String> {
        let Some((value, rest)) = field(name) else {
            return Vec::new();
        };
        let items: Vec<&str> = match value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
            Some(items) => items.split(',').collect(),
            None if value.is_empty() => rest
                .iter()
                .map_while(|line| line.trim_start().strip_prefix("- "))
                .collect(),
            None => vec![value],
        };
        let items = items.into_iter().filter_map(scalar);
        items
            .filter(|item| !item.contains(','))
            .take(MAX_TAGS)
            .collect()
    };
    // A list of licences is one expression: either may be chosen.
    let licences = list("license");
    let license = match licences.as_slice() {
        [] => None,
        // What Hugging Face calls a licence that it does not know.
        [one] if one == "other" => list("license_name")
            .into_iter()
            .next()
            .or(Some(one.clone())),
        all => Some(all.join(" OR ")),
    };
    Card {
        license,
        tags: list("tags"),
    }
}

/// A plain or quoted value, without a comment.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let rest = text.strip_prefix(*quote)?;
        rest.split_once(*quote).map(|(value, _)| value)
    });
    let value = quoted.unwrap_or_else(|| text.split(" #").next().unwrap_or(text).trim());
    let plain = quoted.is_some() || !value.starts_with(['[', '{', '&', '*', '!', '|', '>', '#']);
    (plain && !value.is_empty() && value.len() <= MAX_BYTES).then(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(license: &str, tags: &[&str]) -> Card {
        Card {
            license: (!license.is_empty()).then(|| license.to_string()),
            tags: tags.iter().map(|tag| tag.to_string()).collect(),
        }
    }

    #[test]
    fn k20_the_simple_forms_are_understood() {
        for (text, expected) in [
            (
                "---\nlicense: mit\ntags:\n- a\n- \"b c\"\n---\n# T",
                card("mit", &["a", "b c"]),
            ),
            (
                "---\r\ntags: [x, 'y']\r\nlicense: \"apache-2.0\" # ok\r\n---\r\n",
                card("apache-2.0", &["x", "y"]),
            ),
            (
                "\u{feff}---\nlanguage: en\ntags:\n  - one\nlicense:\n- mit\n- apache-2.0\n---",
                card("mit OR apache-2.0", &["one"]),
            ),
            (
                "---\nlicense: other\nlicense_name: llama3\n---\n",
                card("llama3", &[]),
            ),
            ("---\nlicense: other\n---\n", card("other", &[])),
            ("---\nlicense_name: x\n---\n", card("", &[])),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn k20_what_is_no_front_matter_says_nothing() {
        for text in [
            "",
            "# Title\nlicense: mit\n",
            "text\n---\nlicense: mit\n---\n",
            "---\nlicense: mit\n",
            "---\nlicense: {a: b}\ntags: |\n  text\n---\n",
            "---\n  license: mit\n---\n",
        ] {
            assert_eq!(parse(text), Card::default(), "{text}");
        }
        let long = format!("---\nlicense: {}\n---\n", "x".repeat(300));
        assert_eq!(parse(&long), Card::default());
    }
}
