//! Feeds libFuzzer's bytes to `wiremesh_fuzz::control_messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::control_messages::run(bytes));
