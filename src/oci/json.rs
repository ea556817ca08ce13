//! Strict JSON: what two parsers could read differently is refused.
//!
//! Source: RFC 8259. Beyond it this refuses a byte-order mark, duplicate keys at any level, deep
//! nesting, and documents whose values would take far more memory than their text
//! ([`limits::MAX_JSON_VALUES`], [`limits::MAX_JSON_OBJECTS`]).

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits;
use crate::printable::quoted;

/// Parses a whole document: UTF-8 without byte-order mark, no duplicate keys, no trailing data,
/// nesting at most [`limits::MAX_JSON_DEPTH`].
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed); `subject` names the document.
pub fn parse(bytes: &[u8], subject: &str) -> Result<Value> {
    parse_as(bytes, subject, Role::Plain)
}

/// Parses a document whose field `key` at the top may be a long list: its items are given to `each`
/// one by one, with their numbers, and the list is empty in what is returned. So no more than one
/// item is held as a [`Value`], which takes many times the memory of its text.
///
/// # Errors
/// As [`parse`], also for items of more than [`limits::MAX_JSON_ITEM_VALUES`]; and what `each` gives,
/// which ends the list.
pub(crate) fn parse_with_list(
    bytes: &[u8],
    subject: &str,
    key: &'static str,
    each: &mut dyn FnMut(usize, Value) -> Result<()>,
) -> Result<Value> {
    let list = List {
        key,
        each: RefCell::new(each),
        failed: RefCell::new(None),
    };
    let parsed = parse_as(bytes, subject, Role::Document(&list));
    match list.failed.take() {
        Some(error) => Err(error),
        None => parsed,
    }
}

fn parse_as(bytes: &[u8], subject: &str, role: Role<'_>) -> Result<Value> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Error::malformed(subject, "starts with a byte-order mark"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let rule = format!("is not UTF-8 at byte {}", e.valid_up_to());
        Error::malformed(subject, rule)
    })?;
    let budget = Budget::new(limits::MAX_JSON_VALUES, limits::MAX_JSON_OBJECTS);
    let seed = Strict {
        depth: 0,
        budget: &budget,
        role,
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

/// What is left of the limits on one document, or on one item of a long list.
struct Budget {
    values: Left,
    objects: Left,
}

/// How many more there may be.
struct Left {
    limit: usize,
    left: Cell<usize>,
}

impl Budget {
    fn new(values: usize, objects: usize) -> Budget {
        let left = |limit| Left {
            limit,
            left: Cell::new(limit),
        };
        Budget {
            values: left(values),
            objects: left(objects),
        }
    }
}

impl Left {
    fn spend<E: serde::de::Error>(&self, what: &str) -> Result<(), E> {
        let limit = self.limit;
        let rest = self.left.get().checked_sub(1);
        let rest =
            rest.ok_or_else(|| E::custom(format!("has too many {what}, the limit is {limit}")))?;
        self.left.set(rest);
        Ok(())
    }
}

/// Takes the items of a list that is not held as a whole.
trait Items {
    /// The list's field of the document.
    fn key(&self) -> &str;

    /// Takes one item; false when no more are wanted.
    fn take(&self, number: usize, item: Value) -> bool;
}

struct List<'a> {
    key: &'static str,
    each: RefCell<&'a mut dyn FnMut(usize, Value) -> Result<()>>,
    /// What `each` refused, which the parser would only keep as text.
    failed: RefCell<Option<Error>>,
}

impl Items for List<'_> {
    fn key(&self) -> &str {
        self.key
    }

    fn take(&self, number: usize, item: Value) -> bool {
        let taken = (self.each.borrow_mut())(number, item);
        taken
            .map_err(|error| self.failed.replace(Some(error)))
            .is_ok()
    }
}

/// What the value that is parsed next is.
#[derive(Clone, Copy)]
enum Role<'a> {
    Plain,
    /// A document with a long list.
    Document(&'a dyn Items),
    /// The long list.
    List(&'a dyn Items),
}

/// Builds one [`Value`], checking what `serde_json`'s own does not.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    budget: &'a Budget,
    role: Role<'a>,
}

impl<'a> Strict<'a> {
    /// The seed for what stands inside this value.
    fn inner<E: serde::de::Error>(self) -> Result<Strict<'a>, E> {
        let depth = self.depth + 1;
        if depth > limits::MAX_JSON_DEPTH {
            return Err(E::custom(too_deep()));
        }
        let role = Role::Plain;
        Ok(Strict {
            depth,
            role,
            ..self
        })
    }

    /// The seed for the value of a field.
    fn field<E: serde::de::Error>(self, key: &str) -> Result<Strict<'a>, E> {
        let inner = self.inner()?;
        Ok(match self.role {
            Role::Document(list) if list.key() == key => Strict {
                role: Role::List(list),
                ..inner
            },
            _ => inner,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.budget.values.spend("values")?;
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
        if let Role::List(list) = self.role {
            for number in 0.. {
                let (values, objects) =
                    (limits::MAX_JSON_ITEM_VALUES, limits::MAX_JSON_ITEM_OBJECTS);
                let budget = Budget::new(values, objects);
                let seed = Strict {
                    budget: &budget,
                    ..seed
                };
                let Some(item) = seq.next_element_seed(seed)? else {
                    break;
                };
                if !list.take(number, item) {
                    return Err(A::Error::custom("was refused"));
                }
            }
            return Ok(Value::Array(Vec::new()));
        }
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.budget.objects.spend("objects")?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match map.entry(key) {
                Entry::Occupied(entry) => {
                    let rule = format!("has the key {} twice in one object", quoted(entry.key()));
                    return Err(A::Error::custom(rule));
                }
                Entry::Vacant(entry) => {
                    let seed = self.field(entry.key())?;
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

    /// A document of which `list` is read item by item.
    fn with_list(text: &str) -> Result<(Value, Vec<(usize, Value)>)> {
        let mut items = Vec::new();
        let document = parse_with_list(text.as_bytes(), "doc", "list", &mut |number, item| {
            if item == Value::Bool(false) {
                return Err(Error::malformed("item", "is false"));
            }
            items.push((number, item));
            Ok(())
        });
        Ok((document?, items))
    }

    #[test]
    fn a_list_is_read_item_by_item_and_a_document_as_ever() {
        use serde_json::json;
        let text = r#"{"a":[1],"list":[1,{"list":[2]},[3]],"b":null}"#;
        let (document, items) = with_list(text).unwrap();
        assert_eq!(document, json!({"a": [1], "list": [], "b": null}));
        let expected = [json!(1), json!({"list": [2]}), json!([3])];
        assert!(items.into_iter().eq(expected.into_iter().enumerate()));
        // What is no list at the top is a value like any other.
        for text in [
            r#"{"list":null}"#,
            r#"{"list":{"list":[1]}}"#,
            "[[1]]",
            r#""list""#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(with_list(text).unwrap(), (value, Vec::new()));
        }
    }

    #[test]
    fn j1_items_of_a_list_have_limits_of_their_own() {
        let item = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        let list = |items: &[String]| format!(r#"{{"list":[{}]}}"#, items.join(","));
        let most = item(limits::MAX_JSON_ITEM_VALUES);
        let many = limits::MAX_JSON_VALUES / limits::MAX_JSON_ITEM_VALUES + 2;
        assert_eq!(with_list(&list(&vec![most; many])).unwrap().1.len(), many);
        let error = with_list(&list(&[item(limits::MAX_JSON_ITEM_VALUES + 1)])).unwrap_err();
        assert!(error.to_string().contains("too many values"), "{error}");
    }

    #[test]
    fn what_is_refused_of_an_item_is_the_error() {
        let error = with_list(r#"{"list":[true,false,"#)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "item: is false");
        let error = with_list(r#"{"list":[true],"list":[true]}"#).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
        assert!(with_list(r#"{"list":[true,"#).is_err());
    }

    #[test]
    fn p6_an_error_about_a_hostile_key_is_printable() {
        let error = parse(b"{\"\\u001b[2J\":1,\"\\u001b[2J\":1}", "doc").unwrap_err();
        assert!(!error.to_string().contains('\x1b'));
    }
}
