//! Feeds libFuzzer's bytes to `wiremesh_fuzz::ticket`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::ticket::run(bytes));
