//! Feeds libFuzzer's bytes to `wiremesh_fuzz::text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::text::run(bytes));
