//! `wiremesh demo --upgrade`: a network moves to a post-quantum suite while it runs.
//!
//! Owns the story: sixteen nodes, from "L1 only" through "both" to "L2 only", one after the other,
//! with a rollback, a restart and a kill -9. The nodes are in `upgrade/member.rs`, the messages
//! between them in `upgrade/link.rs`.

mod link;
mod member;

use crate::failure::Failure;
use crate::table::{Cell, Table};
use crate::term::{Colour, Style};
use crate::{node, say, units};
use link::Link;
use member::Member;
pub use member::serve;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wiremesh::{Level, Policy, Stage};

/// Nodes; the last one is a process of its own, so that it can be killed.
const NODES: usize = 16;
/// Whom each node talks to: those so many places further in the ring.
const DISTANCES: [usize; 3] = [1, 2, 5];
/// The node that goes back to the old suite for a while.
const ROLLED_BACK: usize = 4;
/// The node that moves on by a restart rather than at run time.
const RESTARTED: usize = 8;
/// The process that is killed.
const KILLED: usize = NODES - 1;
/// Between two steps: long enough that what a step breaks would be seen.
const PAUSE: Duration = Duration::from_millis(300);
/// How long it may take until all links work again after a death: the tunnel is there after 15 s,
/// but QUIC's next probe, which learns that the connection is gone, comes after 15, 30 or 60 s.
const HEALING: Duration = Duration::from_secs(120);

/// The network, and when the story began.
struct Story {
    members: Vec<Arc<Member>>,
    links: Vec<Arc<Link>>,
    begun: Instant,
}

/// Tells the story.
pub async fn run() -> Result<(), Failure> {
    tokio::select! {
        result = demo() => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    }
}

async fn demo() -> Result<(), Failure> {
    let story = Story::begin().await?;
    story.tell().await?;
    let lossless = story.end().await?;
    match lossless {
        true => Ok(()),
        false => Err(Failure::runtime(
            "the network did not stay whole: see the table",
        )),
    }
}

impl Story {
    async fn begin() -> Result<Self, Failure> {
        say::note(format!(
            "Starting {NODES} nodes on loopback, the last one in a process of its own. Each talks \
             to {} others: a stream and datagrams, numbered, every {} ms, echoed.",
            2 * DISTANCES.len(),
            link::EVERY.as_millis()
        ));
        let mut members = Vec::new();
        for number in 0..NODES {
            let member = match number {
                KILLED => Member::process(number).await?,
                _ => Member::here(number).await?,
            };
            members.push(Arc::new(member));
        }
        let begun = Instant::now();
        let mut links = Vec::new();
        for from in 0..NODES {
            for distance in DISTANCES {
                // The process only answers, so the other end of its links begins.
                let (from, to) = match (from, (from + distance) % NODES) {
                    (KILLED, to) => (to, KILLED),
                    pair => pair,
                };
                let ends = (Arc::clone(&members[from]), Arc::clone(&members[to]));
                links.push(Link::start(ends));
            }
        }
        let story = Self {
            members,
            links,
            begun,
        };
        story.wait_until_whole().await?;
        Ok(story)
    }

    async fn tell(&self) -> Result<(), Failure> {
        say::note("");
        say::print(
            "   TIME  NODE  WHAT HAPPENS                                    LINKS AT L1  AT L2  AWAY\n",
        )?;
        self.line(None, "all list the old suite only")?;
        for number in (0..NODES).filter(|n| *n != RESTARTED) {
            self.move_to(number, Stage::Both).await?;
        }
        self.members[RESTARTED].restart(Stage::Both).await?;
        self.after(RESTARTED, "restarted, lists both suites")
            .await?;
        self.move_to(ROLLED_BACK, Stage::OldOnly).await?;
        self.move_to(ROLLED_BACK, Stage::Both).await?;
        self.members[KILLED].kill().await?;
        self.after(KILLED, "killed with signal 9").await?;
        self.members[KILLED].revive(Stage::Both).await?;
        self.after(KILLED, "started again, lists both suites")
            .await?;
        // Its peers notice when nothing came back for 15 s, as WireGuard does.
        self.wait_until_whole().await?;
        self.line(None, "all links work again")?;
        for number in 0..NODES {
            self.move_to(number, Stage::NewOnly).await?;
        }
        Ok(())
    }

    async fn move_to(&self, number: usize, stage: Stage) -> Result<(), Failure> {
        self.members[number].set_stage(stage).await?;
        let what = match stage {
            Stage::OldOnly => "rolled back, lists the old suite only",
            Stage::Both | Stage::BothPreferOld => "lists both suites",
            Stage::NewOnly => "lists the new suite only, and promises it",
        };
        self.after(number, what).await
    }

    async fn after(&self, number: usize, what: &str) -> Result<(), Failure> {
        tokio::time::sleep(PAUSE).await;
        self.line(Some(number), what)
    }

    fn line(&self, number: Option<usize>, what: &str) -> Result<(), Failure> {
        let alive = |link: &Arc<Link>| link.level().filter(|_| link.is_alive());
        let levels: Vec<_> = self.links.iter().map(alive).collect();
        let at = |level| levels.iter().filter(|l| **l == level).count();
        let number = number.map_or(String::new(), |n| (n + 1).to_string());
        say::print(format!(
            "{:>6.1} s  {number:>4}  {what:<46}  {:>11}  {:>5}  {:>4}\n",
            self.begun.elapsed().as_secs_f64(),
            at(Some(Level::Classical)),
            at(Some(Level::PostQuantum)),
            at(None)
        ))
    }

    async fn wait_until_whole(&self) -> Result<(), Failure> {
        let waited = Instant::now();
        while !self.links.iter().all(|link| link.is_alive()) {
            if waited.elapsed() > HEALING {
                let text = "some links did not come up within two minutes";
                return Err(Failure::runtime(text));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Stops, counts and shows; whether nothing was lost where nobody died.
    async fn end(&self) -> Result<bool, Failure> {
        self.links.iter().for_each(|link| link.finish());
        for link in &self.links {
            link.finished().await;
        }
        let died = [RESTARTED, KILLED].map(|number| self.members[number].ticket().node_id);
        let touched = |link: &Link| died.iter().any(|id| link.touches(id));
        let mut table = Table::new(&[
            "LINKS",
            "COUNT",
            "MESSAGES",
            "LOST",
            "DATAGRAMS",
            "LOST",
            "STREAMS BROKEN",
            "LONGEST GAP",
            "BELOW LEVEL",
            "AT L2",
        ]);
        let mut lossless = true;
        let groups = [
            ("of nodes that stayed up", false),
            ("of nodes that died", true),
        ];
        for (name, group) in groups {
            let of: Vec<_> = self.links.iter().filter(|l| touched(l) == group).collect();
            let sum =
                |f: &dyn Fn(&link::Count) -> u64| of.iter().map(|l| f(&l.count())).sum::<u64>();
            let [sent, echoed] = [sum(&|c| c.sent), sum(&|c| c.echoed)];
            let [datagrams, back] = [sum(&|c| c.datagrams), sum(&|c| c.datagrams_echoed)];
            let [broken, below] = [sum(&|c| c.broken), sum(&|c| c.below)];
            let gap = of.iter().map(|link| link.count().longest_gap).max();
            let upgraded = of
                .iter()
                .filter(|link| link.level() == Some(Level::PostQuantum))
                .count();
            let whole = sent == echoed && datagrams == back && broken == 0;
            lossless &= below == 0 && upgraded == of.len() && (group || whole);
            let zero = |count: u64| {
                let cell = Cell::number(count.to_string());
                match (count, group) {
                    (0, _) => cell.colour(Colour::Good),
                    (_, false) => cell.colour(Colour::Bad),
                    _ => cell,
                }
            };
            table.row(vec![
                Cell::text(name),
                Cell::number(of.len().to_string()),
                Cell::number(sent.to_string()),
                zero(sent - echoed),
                Cell::number(datagrams.to_string()),
                zero(datagrams - back),
                zero(broken),
                Cell::number(units::span(gap.unwrap_or_default())),
                zero(below),
                Cell::number(upgraded.to_string()),
            ]);
        }
        say::note("");
        say::print(table.draw(Style::stdout()))?;
        say::note(format!(
            "Every node moved from WireGuard alone (L1) to WireGuard with X25519 + ML-KEM-768 (L2) \
             while messages flowed, one by one, in {}. Nobody planned a flag day.",
            units::span(self.begun.elapsed())
        ));
        for member in &self.members {
            member.stop().await;
        }
        Ok(lossless)
    }
}

/// The policy of a member at a stage.
fn policy(stage: Stage) -> Policy {
    Policy::at(stage)
}
