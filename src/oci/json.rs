//! Strict JSON: what two parsers could read differently is refused.
//!
//! Source: RFC 8259. Beyond it this refuses a byte-order mark, duplicate keys at any level, deep
//! nesting, and documents whose values would take far more memory than their text
//! ([`limits::MAX_JSON_VALUES`], [`limits::MAX_JSON_OBJECTS`]).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits;

/// Parses a whole document: UTF-8 without byte-order mark, no duplicate keys, no trailing data,
/// nesting at most [`limits::MAX_JSON_DEPTH`].
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed); `subject` names the document.
pub fn parse(bytes: &[u8], subject: &str) -> Result<Value> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::malformed(subject, "starts with a byte-order mark"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let rule = format!("is not UTF-8 at byte {}", e.valid_up_to());
        Error::malformed(subject, rule)
    })?;
    let budget = Budget {
        values: Cell::new(limits::MAX_JSON_VALUES),
        objects: Cell::new(limits::MAX_JSON_OBJECTS),
    };
    let seed = Strict {
        depth: 0,
        budget: &budget,
    };
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = seed
        .deserialize(&mut parser)
        .map_err(|e| refused(&e, subject))?;
    parser.end().map_err(|e| refused(&e, subject))?;
    Ok(value)
}

/// Says what was refused, in the words of this module where the rule is ours.
fn refused(error: &serde_json::Error, subject: &str) -> Error {
    let text = error.to_string();
    let rule = match error.classify() {
        Category::Data => text,
        // The parser's own guard fires one level before ours when both limits are 128.
        _ if text.starts_with("recursion limit exceeded") => too_deep(),
        _ => format!("is not valid JSON: {text}"),
    };
    Error::malformed(subject, rule)
}

fn too_deep() -> String {
    format!(
        "is nested too deeply, the limit is {}",
        limits::MAX_JSON_DEPTH
    )
}

/// What is left of the limits on one document.
struct Budget {
    values: Cell<usize>,
    objects: Cell<usize>,
}

impl Budget {
    fn spend<E: serde::de::Error>(left: &Cell<usize>, what: &str, limit: usize) -> Result<(), E> {
        let rest = left
            .get()
            .checked_sub(1)
            .ok_or_else(|| E::custom(format!("has too many {what}, the limit is {limit}")))?;
        left.set(rest);
        Ok(())
    }
}

/// Builds one [`Value`], checking what `serde_json`'s own does not.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    budget: &'a Budget,
}

impl<'a> Strict<'a> {
    /// The seed for what stands inside this value.
    fn inner<E: serde::de::Error>(self) -> Result<Strict<'a>, E> {
        let depth = self.depth + 1;
        if depth > limits::MAX_JSON_DEPTH {
            return Err(E::custom(too_deep()));
        }
        Ok(Strict { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Budget::spend(&self.budget.values, "values", limits::MAX_JSON_VALUES)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let seed = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        Budget::spend(&self.budget.objects, "objects", limits::MAX_JSON_OBJECTS)?;
        let seed = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match map.entry(key) {
                Entry::Occupied(entry) => {
                    let rule = format!("has the key {:?} twice in one object", entry.key());
                    return Err(A::Error::custom(rule));
                }
                Entry::Vacant(entry) => {
                    entry.insert(access.next_value_seed(seed)?);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorKind;

    fn refuses(bytes: &[u8], rule: &str) {
        let error = parse(bytes, "doc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let text = error.to_string();
        assert!(text.starts_with("doc: ") && text.contains(rule), "{text}");
    }

    #[test]
    fn ordinary_documents_pass_unchanged() {
        for text in [
            r#"{"a":[1,-2,3.5,null,true,"\u0000é"],"b":{"a":{}}}"#,
            "[]",
            "18446744073709551615",
            " null\n",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes(), "doc").unwrap(), value);
        }
    }

    #[test]
    fn j2_nesting_100_000_deep() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            refuses(open.repeat(100_000).as_bytes(), "nested too deeply");
            let deep = |n: usize| format!("{}0{}", open.repeat(n), close.repeat(n));
            assert!(parse(deep(limits::MAX_JSON_DEPTH - 1).as_bytes(), "doc").is_ok());
            refuses(
                deep(limits::MAX_JSON_DEPTH + 1).as_bytes(),
                "nested too deeply, the limit is 128",
            );
        }
    }

    #[test]
    fn j3_duplicate_keys_at_any_level() {
        refuses(br#"{"a":1,"a":1}"#, r#"has the key "a" twice"#);
        refuses(
            br#"[{"x":{"size":1,"b":0,"size":2}}]"#,
            r#"the key "size" twice"#,
        );
        refuses(br#"{"a":1,"\u0061":1}"#, "twice");
    }

    #[test]
    fn j3_byte_order_mark_trailing_data_invalid_utf8() {
        refuses(b"\xef\xbb\xbf{}", "byte-order mark");
        refuses(b"{}{}", "trailing characters");
        refuses(b"{} x", "trailing characters");
        refuses(b"{}\0", "trailing characters");
        refuses(b"{\"a\":\"\xff\"}", "is not UTF-8 at byte 6");
        refuses(br#""\ud800""#, "is not valid JSON");
        refuses(b"", "is not valid JSON");
        refuses(b"{\"a\":1,}", "is not valid JSON");
        refuses(b"{'a':1}", "is not valid JSON");
        refuses(b"NaN", "is not valid JSON");
        refuses(b"// c\n{}", "is not valid JSON");
    }

    #[test]
    fn j1_values_that_take_more_memory_than_text() {
        let many = |item: &str, n: usize| format!("[{}0]", format!("{item},").repeat(n));
        refuses(
            many("0", limits::MAX_JSON_VALUES).as_bytes(),
            "too many values",
        );
        refuses(
            many(r#"{"":0}"#, limits::MAX_JSON_OBJECTS + 1).as_bytes(),
            "too many objects",
        );
    }

    #[test]
    fn p6_an_error_about_a_hostile_key_is_printable() {
        let error = parse(b"{\"\\u001b[2J\":1,\"\\u001b[2J\":1}", "doc").unwrap_err();
        assert!(!error.to_string().contains('\x1b'));
    }
}
