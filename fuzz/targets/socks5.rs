//! Feeds libFuzzer's bytes to `wiremesh_fuzz::socks5`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::socks5::run(bytes));
