//! Feeds libFuzzer's bytes to `wiremesh_fuzz::ip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::ip::run(bytes));
