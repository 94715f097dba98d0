//! Feeds libFuzzer's bytes to `wiremesh_fuzz::quic_handshake`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiremesh_fuzz::quic_handshake::run(bytes));
