//! Which part of a model is shown.

/// Which part of a model is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Subtree {
    /// What its system says is the model: of an image its `/models`, where it has one.
    #[default]
    Usual,
    /// All of it.
    All,
    /// What is below this directory.
    Below(String),
}

impl Subtree {
    /// What is below a directory, which has a path from the model's root; that may begin with a slash.
    pub fn below(path: &str) -> Subtree {
        match path.trim_matches('/') {
            "" => Subtree::All,
            path => Subtree::Below(path.into()),
        }
    }
}
