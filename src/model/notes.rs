//! Things about an archive that are worth a remark: as few as somebody reads, however many there are.

use std::fmt::Display;
use std::ops::Deref;

use crate::limits;
use crate::printable::Text;

/// Remarks, one sentence each. Of too many the last says how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    list: Vec<String>,
    bytes: usize,
    more: usize,
}

impl Notes {
    /// Adds one.
    pub(crate) fn push(&mut self, note: impl Display) {
        if self.more == 0 && self.list.len() < limits::MAX_NOTES {
            let note = Text::foreign(note).to_string();
            if self.bytes + note.len() <= limits::MAX_NOTE_BYTES {
                self.bytes += note.len();
                self.list.push(note);
                return;
            }
        }
        if self.more > 0 {
            self.list.pop();
        }
        self.more += 1;
        self.list.push(match self.more {
            1 => "and one more remark".to_string(),
            more => format!("and {more} more remarks"),
        });
    }
}

impl Deref for Notes {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_remarks_have_a_bound_and_the_rest_is_counted() {
        let mut notes = Notes::default();
        for n in 0..limits::MAX_NOTES {
            notes.push(n);
        }
        assert_eq!(notes.len(), limits::MAX_NOTES);
        notes.push("one");
        assert_eq!(notes.last().unwrap(), "and one more remark");
        for _ in 1..20_000 {
            notes.push("more");
        }
        assert_eq!(notes.len(), limits::MAX_NOTES + 1);
        assert_eq!(notes.last().unwrap(), "and 20000 more remarks");

        let mut long = Notes::default();
        for _ in 0..20_000 {
            long.push(format_args!("{:64000}", "a"));
        }
        let bytes: usize = long.iter().map(String::len).sum();
        assert!(bytes <= limits::MAX_NOTE_BYTES + 100, "{bytes}");
        assert_eq!(
            long.last().unwrap(),
            &format!("and {} more remarks", 20_001 - long.len())
        );
    }
}
