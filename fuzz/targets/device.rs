//! Feeds libFuzzer's bytes to `wiremesh_fuzz::device`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::device::run(bytes));
