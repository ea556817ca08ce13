//! Files and directories reached through handles: what a path means is decided once, when it is
//! opened; every later step is taken below a descriptor that is held.

pub(crate) mod beneath;
