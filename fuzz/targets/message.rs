//! Feeds libFuzzer's bytes to `wiremesh_fuzz::message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::message::run(bytes));
