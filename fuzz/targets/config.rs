//! Feeds libFuzzer's bytes to `wiremesh_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::config::run(bytes));
