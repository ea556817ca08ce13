//! Names for files that have none: by what their layers' media types say, as the tools call them that
//! these types belong to.

use std::collections::HashMap;

use super::entry::Layer;

/// A stem, and an extension with its dot.
pub(super) type Name = (&'static str, &'static str);

/// Names the files of layers that state no path. Of several with one name each has its number between
/// stem and extension, in the order of the manifest; one that states its path is counted, too.
pub(super) fn name(layers: &mut [Layer], name_of: impl Fn(&Layer) -> Option<Name>) {
    let mut counts: HashMap<Name, usize> = HashMap::new();
    for name in layers.iter().filter_map(&name_of) {
        *counts.entry(name).or_default() += 1;
    }
    let mut numbers: HashMap<Name, usize> = HashMap::new();
    for layer in layers {
        let Some(name) = name_of(layer) else {
            continue;
        };
        let number = numbers.entry(name).or_default();
        *number += 1;
        let (stem, extension) = name;
        let named = || match counts.get(&name) {
            Some(count @ 2..) => format!("{stem}-{number:05}-of-{count:05}{extension}"),
            _ => format!("{stem}{extension}"),
        };
        layer.path.get_or_insert_with(|| named().into());
    }
}
