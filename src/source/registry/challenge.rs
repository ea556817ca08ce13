//! What a registry wants to see, by the header that it refuses with (RFC 9110, section 11.6.1).

/// How to ask for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The address that gives tokens.
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

/// What is wanted: a token rather than a password, where both would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer(Bearer),
    Basic,
}

/// Reads the values of all `WWW-Authenticate` headers; `None` for one that asks for nothing we have.
pub(super) fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for (scheme, parameters) in split(header) {
            let value = |name: &str| {
                let mut all = parameters.iter();
                let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = value("realm")
            {
                return Some(Challenge::Bearer(Bearer {
                    realm,
                    service: value("service"),
                    scope: value("scope"),
                }));
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// The challenges of one header. A word without `=` behind it begins another one.
fn split(header: &str) -> Vec<(&str, Parameters)> {
    let mut found: Vec<(&str, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            // At the end, or in front of what is no word.
            return found;
        }
        let Some(behind) = behind.trim_start().strip_prefix('=') else {
            found.push((word, Parameters::new()));
            rest = behind;
            continue;
        };
        let (value, behind) = value(behind.trim_start());
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word.to_string(), value));
        }
        rest = behind;
    }
}

/// A value, in quotes or not, and what stands behind it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return (value.to_string(), behind);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }))
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let both = bearer("https://a.x/t", Some("r"), Some("repository:a/b:pull,push"));
        for headers in [
            &[r#"Bearer realm="https://a.x/t",service="r",scope="repository:a/b:pull,push""#][..],
            &[
                r#"bearer  service = r , realm="https://a.x/t", scope="repository:a/b:pull,push", x="#,
            ],
            &[
                "Basic realm=\"r\"",
                r#"Bearer realm="https://a.x/t",service=r,scope="repository:a/b:pull,push""#,
            ],
            &[
                r#"Basic realm="a, Bearer realm=b", Bearer realm="https:\//a.x/t",service="r",scope="repository:a/b:pull,push""#,
            ],
        ] {
            assert_eq!(read(headers.iter().copied()), both, "{headers:?}");
        }
        assert_eq!(
            read([r#"Basic realm="x""#].into_iter()),
            Some(Challenge::Basic)
        );
        assert_eq!(
            read(["Bearer realm=a"].into_iter()),
            bearer("a", None, None)
        );
    }

    #[test]
    fn w3_what_is_no_challenge_is_none() {
        for header in [
            "",
            "=",
            "\"",
            "Bearer",
            "Bearer scope=x",
            "Negotiate abc==",
            "Bearer realm",
            ",,,",
            "a=b",
        ] {
            assert_eq!(read([header].into_iter()), None, "{header}");
        }
        assert_eq!(
            read(["Bearer realm=\"a"].into_iter()),
            bearer("a", None, None)
        );
    }
}
