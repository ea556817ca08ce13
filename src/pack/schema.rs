//! A contract for configs: the whole document is validated before anything is packed.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::oci::OciConfig;
use crate::printable::printable;

/// How many violations a message lists.
const LISTED: usize = 20;

/// Validates a config, metadata included, against a JSON Schema. What a schema refers to must be
/// in it: nothing is fetched.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) names every violation by its path in the config, or
/// says why the schema is none.
pub(super) fn check(config: &OciConfig, schema: &Value) -> Result<()> {
    let validator = jsonschema::validator_for(schema).map_err(|error| {
        Error::usage(printable(&format!(
            "the config's schema is not usable: {error}"
        )))
    })?;
    let document = serde_json::to_value(config).unwrap_or_default();
    let mut violations: Vec<String> = validator
        .iter_errors(&document)
        .map(|error| {
            let path = match error.instance_path().as_str() {
                "" => "/",
                path => path,
            };
            printable(&format!("{path}: {error}"))
        })
        .collect();
    if violations.is_empty() {
        return Ok(());
    }
    violations.sort();
    let more = violations.len().saturating_sub(LISTED);
    violations.truncate(LISTED);
    if more > 0 {
        violations.push(format!("and {more} more"));
    }
    Err(Error::usage(format!(
        "the config breaks its schema: {}",
        violations.join("; ")
    )))
}
