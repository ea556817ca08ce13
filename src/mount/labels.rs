//! Labels of SELinux that a mount gets when it is made: the options `context=` and the like of
//! mount(8). They are passed on; what they mean, and whether they are allowed, is the kernel's word.

use crate::error::{Error, Result};

/// Longest label: what fsconfig(2) takes of a string.
const MAX_BYTES: usize = 255;

/// The options, in the order in which they are passed on.
const NAMES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// The labels of a mount; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels([Option<String>; NAMES.len()]);

impl Labels {
    /// True for `context`, `fscontext`, `defcontext` and `rootcontext`.
    pub fn is_option(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Sets the label of an option.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an unknown option, and for what is no label: it
    /// is empty, too long, or has a quote or a control character.
    pub fn set(&mut self, name: &str, label: &str) -> Result<()> {
        let refuse = |why: &str| Err(Error::usage(format!("mount option \"{name}\": {why}")));
        let Some(at) = NAMES.iter().position(|option| *option == name) else {
            return refuse("is no label of SELinux");
        };
        if label.is_empty() {
            return refuse("is empty");
        }
        if label.len() > MAX_BYTES {
            return refuse(&format!("is longer than {MAX_BYTES} bytes"));
        }
        if label.contains(|c: char| c == '"' || c.is_control()) {
            return refuse("has a quote or a control character");
        }
        if let Some(slot) = self.0.get_mut(at) {
            *slot = Some(label.into());
        }
        Ok(())
    }

    /// Those that are set: option and label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let labels = NAMES.into_iter().zip(&self.0);
        labels.filter_map(|(name, label)| Some((name, label.as_deref()?)))
    }

    /// As mount(2) and mount(8) read them in a list of options, each with a comma in front: quoted,
    /// since a label may have commas.
    pub fn to_list(&self) -> String {
        self.iter()
            .map(|(name, label)| format!(",{name}=\"{label}\""))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn m12_labels_are_quoted_so_that_their_commas_separate_nothing() {
        let mut labels = Labels::default();
        assert_eq!(labels.to_list(), "");
        labels.set("rootcontext", "a:b:c:s0").unwrap();
        let label = "system_u:object_r:tmp_t:s0:c127,c456";
        labels.set("context", label).unwrap();
        assert_eq!(
            labels.to_list(),
            format!(",context=\"{label}\",rootcontext=\"a:b:c:s0\"")
        );
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("context", label), ("rootcontext", "a:b:c:s0")]);
    }

    #[test]
    fn m12_a_label_cannot_inject_options() {
        let mut labels = Labels::default();
        let long = "x".repeat(256);
        for bad in ["", "a\",allow_other,b=\"", "a\nb", &long] {
            let error = labels.set("context", bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{bad}");
            assert!(error.to_string().contains("\"context\""), "{error}");
        }
        assert!(labels.set("seclabel", "a").is_err());
        assert_eq!(labels, Labels::default());
    }
}
