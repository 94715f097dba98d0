//! The upgrade of a whole network, node by node, while everybody talks.
//!
//! Owns the plan: old only, then both, then new only, with one node that goes back once and one
//! that is killed; and the samples of how far the network has come.

use crate::lab::{Lab, LabOptions, Slowest, Start};
use crate::options::Failure;
use crate::random::Random;
use std::time::Duration;
use wiremesh_control::{Level, Policy, Stage};

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// How a network is upgraded.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeOptions {
    /// Everything by chance follows from it.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Links that each node has, on average.
    pub neighbours: usize,
    /// How long it takes until each node has moved by one stage.
    pub stage_time: Duration,
    /// Each node sends each neighbour a message this often.
    pub message_every: Duration,
}

impl Default for UpgradeOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 2_000,
            neighbours: 6,
            stage_time: Duration::from_secs(600),
            message_every: Duration::from_secs(10),
        }
    }
}

/// How far the network had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Running nodes at old only, both, and new only; and those that do not run.
    pub nodes: [usize; 4],
    /// Links at L1, at L2, and those on which nothing passes in one direction at least.
    pub links: [usize; 3],
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct UpgradeReport {
    /// In order of time.
    pub samples: Vec<Sample>,
    /// The node that went back from both to old only, and on later.
    pub rolled_back: usize,
    /// The node that was killed, and came back 30 s later.
    pub killed: usize,
    /// Links.
    pub links: usize,
    /// Messages sent.
    pub sent: usize,
    /// Messages that did not arrive, those to and from the killed node left out.
    pub lost: usize,
    /// Messages from or to the killed node that did not arrive.
    pub lost_with_killed: usize,
    /// Messages that a node did not take.
    pub refused: usize,
    /// The message that took longest, those to and from the killed node left out.
    pub slowest: Option<Slowest>,
}

/// What is done to one node.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Move(Stage),
    Kill,
    Start,
}

/// Each node gets links to nodes at random until it has enough, all in one piece by a ring.
fn links(random: &mut Random, options: &UpgradeOptions) -> Vec<(usize, usize)> {
    let UpgradeOptions {
        nodes, neighbours, ..
    } = *options;
    let mut links: std::collections::BTreeSet<(usize, usize)> =
        (0..nodes).map(|n| ordered(n, (n + 1) % nodes)).collect();
    let most = nodes * (nodes - 1) / 2;
    while links.len() < (nodes * neighbours / 2).min(most) {
        let (a, b) = (random.index(nodes), random.index(nodes));
        if a != b {
            links.insert(ordered(a, b));
        }
    }
    links.into_iter().collect()
}

fn ordered(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// When what is done to whom.
fn plan(
    random: &mut Random,
    options: &UpgradeOptions,
    (rolled_back, killed): (usize, usize),
) -> Vec<(Duration, usize, Deed)> {
    let stage = options.stage_time;
    let pause = stage / 6;
    let to_both = pause;
    let to_new = to_both + stage + pause;
    let mut deeds = Vec::new();
    for node in 0..options.nodes {
        let mut somewhen = || Duration::from_nanos(random.below(stage.as_nanos() as u64));
        let (both, new) = (to_both + somewhen(), to_new + somewhen());
        deeds.push((both, node, Deed::Move(Stage::Both)));
        deeds.push((new, node, Deed::Move(Stage::NewOnly)));
        if node == rolled_back {
            // Before anybody is at new only, as the specification has it.
            let back = both + (to_new - both) / 3;
            let again = both + (to_new - both) * 2 / 3;
            deeds.push((back, node, Deed::Move(Stage::OldOnly)));
            deeds.push((again, node, Deed::Move(Stage::Both)));
        }
        if node == killed {
            let at = to_both + stage / 2;
            deeds.push((at, node, Deed::Kill));
            deeds.push((at + Duration::from_secs(30), node, Deed::Start));
        }
    }
    deeds.sort_by_key(|(at, node, _)| (*at, *node));
    deeds
}

/// Runs an upgrade.
///
/// # Errors
///
/// The first broken invariant: first of all, anything below the level that a link demands.
pub fn run(options: &UpgradeOptions) -> Result<UpgradeReport, Box<Failure>> {
    let mut random = Random::new(options.seed, Vec::new());
    let mut lab = Lab::new(
        LabOptions {
            seed: options.seed,
            ..LabOptions::default()
        },
        &vec![Policy::at(Stage::OldOnly); options.nodes],
    );
    for (a, b) in links(&mut random, options) {
        lab.introduce(a, b);
    }
    lab.send_every(options.message_every);
    let killed = random.index(options.nodes);
    let rolled_back = (killed + options.nodes / 2) % options.nodes;
    let deeds = plan(&mut random, options, (rolled_back, killed));
    let end = 2 * options.stage_time + options.stage_time / 2;
    let mut samples = vec![sample(&lab)];
    let mut deeds = deeds.into_iter().peekable();
    while lab.time() < end {
        let next_sample = samples[samples.len() - 1].at + SAMPLE_EVERY;
        match deeds.next_if(|(at, _, _)| *at <= next_sample) {
            Some((at, node, deed)) => {
                lab.run_for(at.saturating_sub(lab.time()))?;
                perform(&mut lab, node, deed)?;
            }
            None => {
                lab.run_for(next_sample.saturating_sub(lab.time()))?;
                samples.push(sample(&lab));
            }
        }
    }
    lab.send_no_more();
    lab.run_for(Duration::from_secs(10))?;
    let messages = lab.messages();
    let others = |from, to| from != killed && to != killed;
    let lost = messages.lost(others);
    Ok(UpgradeReport {
        samples,
        rolled_back,
        killed,
        links: lab.links().count(),
        sent: messages.sent(),
        lost,
        lost_with_killed: messages.lost(|_, _| true) - lost,
        refused: messages.refused(),
        slowest: messages.slowest(others),
    })
}

fn perform(lab: &mut Lab, node: usize, deed: Deed) -> Result<(), Box<Failure>> {
    match deed {
        // The operator changes the configuration, and the node reads it when it runs again.
        Deed::Move(stage) => lab.set_policy(node, Policy::at(stage)),
        Deed::Kill => {
            lab.kill(node);
            Ok(())
        }
        Deed::Start => lab.start(node, Start::WithDisk),
    }
}

fn sample(lab: &Lab) -> Sample {
    let (mut nodes, mut links) = ([0; 4], [0; 3]);
    for node in 0..lab.len() {
        let place = match lab.policy(node).map(|policy| policy.stage) {
            _ if !lab.is_up(node) => 3,
            Some(Stage::OldOnly) | None => 0,
            Some(Stage::Both | Stage::BothPreferOld) => 1,
            Some(Stage::NewOnly) => 2,
        };
        nodes[place] += 1;
    }
    for link in lab.links() {
        let place = match lab.level_of_link(link) {
            Some(Level::Classical) => 0,
            Some(_) => 1,
            None => 2,
        };
        links[place] += 1;
    }
    Sample {
        at: lab.time(),
        nodes,
        links,
    }
}
