//! A network moves from L1 to L2 while everybody talks: fifty nodes here, two thousand in
//! `cargo run -p wiremesh-sim --release -- --upgrade docs/upgrade.svg`.
#![allow(clippy::unwrap_used)]

use std::time::Duration;
use wiremesh_sim::plot;
use wiremesh_sim::upgrade::{self, UpgradeOptions};

#[test]
fn fifty_nodes_are_upgraded_one_by_one_without_a_lost_message() {
    let options = UpgradeOptions {
        nodes: 50,
        stage_time: Duration::from_secs(200),
        message_every: Duration::from_secs(1),
        ..UpgradeOptions::default()
    };
    let report = upgrade::run(&options).unwrap();
    assert_eq!(report.links, 150);
    assert!(report.sent > 100_000, "{}", report.sent);
    assert_eq!((report.lost, report.refused), (0, 0), "{report:?}");
    assert!(report.lost_with_killed > 0, "it was down for 30 s");
    assert!(report.slowest.unwrap().took < Duration::from_secs(2));
    // It began at L1 and ended at L2, with both kinds of link in between.
    let links = |at: usize| report.samples[at].links;
    let last = report.samples.len() - 1;
    assert_eq!(links(1), [150, 0, 0]);
    assert_eq!(links(last), [0, 150, 0]);
    assert!((1..last).any(|at| links(at)[0] > 30 && links(at)[1] > 30));
    assert!(report.samples.iter().any(|sample| sample.nodes[3] == 1));
    assert_eq!(report.samples[last].nodes, [0, 0, 50, 0]);

    let svg = plot::svg(&report);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polygon").count(), 7);
}
