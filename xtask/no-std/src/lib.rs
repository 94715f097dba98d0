//! Compiles only if layers 0 to 2 do without the operating system.
//!
//! `std` has a panic handler, and a program can have one only. This crate defines one, so the
//! compiler refuses it as soon as any crate below it, however far, links `std`; no other target
//! needs to be installed for that. One dependency does link it, `aws-lc-rs`, a C library behind a
//! safe interface; `aws-lc-rs/` stands in for it here. Its functions in use are pure: they compute
//! on the bytes given to them.

#![no_std]

extern crate alloc;

pub use wiremesh_control as control_layer;
pub use wiremesh_core as core_layer;
pub use wiremesh_gossip as gossip_layer;
pub use wiremesh_noise as noise_layer;
pub use wiremesh_wire as wire_layer;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
