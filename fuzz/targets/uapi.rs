//! Feeds libFuzzer's bytes to `wiremesh_fuzz::uapi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::uapi::run(bytes));
