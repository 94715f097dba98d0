//! Feeds libFuzzer's bytes to `wiremesh_fuzz::gossip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::gossip::run(bytes));
