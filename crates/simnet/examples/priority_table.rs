//! Prints what urgent messages wait for beside bulk, in all situations, as the table of
//! docs/priority.md: `cargo run --release -p wiremesh-simnet --example priority_table`.

use wiremesh_simnet::priority::{TABLE_HEAD, measure, situations};

fn main() {
    println!("{TABLE_HEAD}");
    for case in situations() {
        println!("{}", measure(case));
    }
}
