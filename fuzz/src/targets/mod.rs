//! The targets, by what they are about. Each is a module with a function `run`, whose documentation
//! is the invariant, and its seeds.

pub mod codec;
pub mod json;
pub mod layer;
pub mod model;
mod reference;
pub mod tar;
