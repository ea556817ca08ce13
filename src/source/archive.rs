//! A tar archive in one file.
