//! The `wiremesh` command: see the library of this package.

fn main() {}
