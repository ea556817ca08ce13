//! Container images, as KServe's ModelCar and Kubernetes' image volumes take them: layers lie over each
//! other and make one file system, and the model is what is below its `/models`, where there is such a
//! directory.
//!
//! Where every layer states the path of its file it is no image, whatever its config is called.

use serde_json::Value;

use super::about::About;
use super::entry::{Contents, Layer, Names};
use super::system::{Config, Head, System};
use crate::error::Result;
use crate::layer::Reading;
use crate::oci::{Stated, media_type};

/// Images whose layers hold files.
pub(super) struct Image;

impl System for Image {
    fn name(&self) -> &'static str {
        "image"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG].contains(&head.config_type)
    }

    fn about(&self, config: &Value) -> About {
        let labels = config.pointer("/config/Labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let texts = labels.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.into())));
        About::of_annotations(&texts.collect())
    }

    fn contents(&self, layers: Vec<Layer>, _: &Config<'_>) -> Result<Contents> {
        let mut contents = Contents::default();
        match layers.iter().all(|layer| layer.path.is_some()) {
            true => {
                let files = layers.into_iter().map(|layer| self.entry(layer));
                contents.files = files.collect::<Result<_>>()?;
            }
            false => {
                let archives = layers
                    .into_iter()
                    .map(|layer| layer.into_archive(Names::Root));
                contents.archives = archives.collect();
            }
        }
        Ok(contents)
    }

    fn reading(&self, stated: &Stated, _: Option<&str>) -> Reading {
        match media_type::names_tar(&stated.media_type) {
            true => Reading::Archive,
            false => Reading::File,
        }
    }

    fn overlays(&self) -> bool {
        true
    }

    fn home(&self) -> Option<&'static str> {
        Some("models")
    }
}
