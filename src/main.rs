//! The modeloci command.

fn main() {}
