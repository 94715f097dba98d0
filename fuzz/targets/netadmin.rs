//! Feeds libFuzzer's bytes to `wiremesh_fuzz::netadmin`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::netadmin::run(bytes));
