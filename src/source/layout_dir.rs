//! An image layout in a directory.
