//! KitOps: a Kitfile says which paths belong to a kit, and there is a layer for each of them. Their tars
//! hold paths from the root of the kit; those of old versions count from the path in the Kitfile.

use std::collections::HashMap;

use serde_json::Value;

use super::about::{About, text};
use super::entry::{Contents, Layer, Names};
use super::system::{Config, Head, System};
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::layer::Reading;
use crate::oci::json;

const CONFIG: &str = "application/vnd.kitops.modelkit.config.v1+json";
/// What the media types of its layers begin with; what the layer is for follows.
const PREFIX: &str = "application/vnd.kitops.modelkit.";

/// Kits.
pub(super) struct KitOps;

impl System for KitOps {
    fn name(&self) -> &'static str {
        "kitops"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        head.config_type == CONFIG
    }

    fn about(&self, kitfile: &Value) -> About {
        About {
            name: text(kitfile, "/package/name"),
            version: text(kitfile, "/package/version"),
            framework: text(kitfile, "/model/framework"),
            architecture: None,
            license: text(kitfile, "/package/license").or_else(|| text(kitfile, "/model/license")),
        }
    }

    fn contents(&self, layers: Vec<Layer>, config: &Config<'_>) -> Result<Contents> {
        let kitfile = match config()? {
            Some(bytes) => Kitfile::parse(&bytes)?,
            None => Kitfile::default(),
        };
        let mut contents = Contents::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for mut layer in layers {
            let kind = layer.stated.media_type.strip_prefix(PREFIX);
            let kind = kind.and_then(|kind| kind.split('.').next()).unwrap_or("");
            let number = numbers.entry(kind.into()).or_default();
            let path = kitfile.path(kind, *number);
            *number += 1;
            match self.reading(&layer.stated, layer.path.as_deref()) {
                Reading::Members => {
                    let names = path.map_or(Names::Root, Names::Below);
                    contents.archives.push(layer.into_archive(names));
                }
                _ => {
                    let path = path.map(|path| path.as_str().into());
                    layer.path = layer.path.or(path);
                    contents.files.push(self.entry(layer)?);
                }
            }
        }
        Ok(contents)
    }
}

/// The paths of a kit, by what they are for.
#[derive(Default)]
struct Kitfile(HashMap<&'static str, Vec<Option<EntryPath>>>);

impl Kitfile {
    /// Of a config, which is the Kitfile as JSON. What it does not say is not known.
    fn parse(bytes: &[u8]) -> Result<Kitfile> {
        let document = json::parse(bytes, "config")?;
        let model = document.get("model");
        let list = |value: Option<&Value>| -> Vec<Option<EntryPath>> {
            let items = value.and_then(Value::as_array).into_iter().flatten();
            items.map(path_of).collect()
        };
        Ok(Kitfile(HashMap::from([
            ("model", model.map(path_of).into_iter().collect()),
            (
                "modelpart",
                list(model.and_then(|model| model.get("parts"))),
            ),
            ("dataset", list(document.get("datasets"))),
            ("code", list(document.get("code"))),
            ("docs", list(document.get("docs"))),
        ])))
    }

    /// The path of the layer of a kind that has this number among those.
    fn path(&self, kind: &str, number: usize) -> Option<EntryPath> {
        self.0.get(kind)?.get(number)?.clone()
    }
}

/// The path of an entry of a Kitfile; `None` for the root.
fn path_of(entry: &Value) -> Option<EntryPath> {
    let path = entry.get("path")?.as_str()?;
    let names = path.split('/').filter(|name| !["", "."].contains(name));
    EntryPath::new(&names.collect::<Vec<_>>().join("/")).ok()
}
