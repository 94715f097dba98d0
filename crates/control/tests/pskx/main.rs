//! The PSK exchange: frames, messages, key schedule and cryptographic steps. docs/spec.md section
//! 7.3.

mod attacks;
mod exchange;
mod frame;
mod known_answers;
mod message;
mod support;
