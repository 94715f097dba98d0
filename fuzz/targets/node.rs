//! Feeds libFuzzer's bytes to `wiremesh_fuzz::node`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::node::run(bytes));
