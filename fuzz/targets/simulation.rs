//! Feeds libFuzzer's bytes to `wiremesh_fuzz::simulation`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::simulation::run(bytes));
