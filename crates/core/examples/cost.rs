//! What the control protocol costs: CPU per exchange and its parts, memory per peer.
//!
//! `cargo run --release -p wiremesh-core --example cost [-- --json]`, about 10 s. Times are
//! medians of single operations on one thread, so that other load moves them little.

#[path = "cost/cpu.rs"]
mod cpu;
#[path = "cost/heap.rs"]
mod heap;
#[path = "cost/memory.rs"]
mod memory;
#[path = "cost/nodes.rs"]
mod nodes;
#[path = "cost/report.rs"]
mod report;

use report::Report;

fn main() {
    let mut report = Report::default();
    memory::measure(&mut report);
    cpu::measure_parts(&mut report);
    cpu::measure_exchanges(&mut report);
    nodes::measure(&mut report);
    report.print();
}
