//! Indexes an outer archive by its headers alone, without reading the data between them.
