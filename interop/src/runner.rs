//! Runs scenarios and says what happened: libtest would hide the reasons of what was skipped.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use crate::arena::{Arena, Helpers, OurSide};
use crate::netns::clean_up_after_dead_runs;
use crate::outcome::{Outcome, Stop};
use crate::programs;
use crate::stock::Make;

/// How much is done, from the environment variable `WIREMESH_INTEROP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not set: what every run of the tests does; wireguard-go with little data.
    Quick,
    /// `all`: every make of the other side, with little data.
    All,
    /// `full`: every make, with 1 GiB (64 MiB in the guest).
    Full,
}

impl Effort {
    /// Reads the environment variable; a word that is none of the three is refused.
    pub fn from_environment() -> Result<Self, String> {
        match std::env::var("WIREMESH_INTEROP").as_deref() {
            Err(_) | Ok("") => Ok(Self::Quick),
            Ok("all") => Ok(Self::All),
            Ok("full") => Ok(Self::Full),
            Ok(word) => Err(format!(
                "WIREMESH_INTEROP={word}: it is all, full or not set"
            )),
        }
    }
}

/// What a scenario works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The two places.
    pub arena: &'a Arena,
    /// How much is done.
    pub effort: Effort,
    name: &'static str,
}

impl Context<'_> {
    /// Tells what was done or seen.
    pub fn say(&self, text: impl AsRef<str>) {
        println!("    {}: {}", self.name, text.as_ref());
    }
}

/// One thing to prove.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name: the behaviour that it proves.
    pub name: &'static str,
    /// Whether it mostly waits, so that others can run meanwhile.
    pub waits: bool,
    /// What it does.
    pub run: fn(&Context<'_>) -> Outcome,
}

/// A scenario that mostly waits.
pub const fn waits(name: &'static str, run: fn(&Context<'_>) -> Outcome) -> Scenario {
    Scenario {
        name,
        waits: true,
        run,
    }
}

/// A scenario that keeps the machine busy.
pub const fn busy(name: &'static str, run: fn(&Context<'_>) -> Outcome) -> Scenario {
    Scenario {
        name,
        waits: false,
        run,
    }
}

/// A whole test: one make of the other side, and what to prove with it.
#[derive(Debug)]
pub struct Suite {
    /// Its name, for messages.
    pub name: &'static str,
    /// Who made the other side.
    pub make: Make,
    /// The least effort at which it runs at all.
    pub effort: Effort,
    /// The programs of this package.
    pub helpers: Helpers,
    /// What runs on our side; `None` is what the environment says.
    pub our_side: Option<OurSide>,
    /// The scenarios, in order.
    pub scenarios: &'static [Scenario],
}

impl Suite {
    /// Runs the scenarios whose names contain a word of the command line, or all of them.
    pub fn main(&self) -> ExitCode {
        let words: Vec<String> = std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .collect();
        if std::env::args().any(|word| word == "--list") {
            self.scenarios
                .iter()
                .for_each(|scenario| println!("{}: test", scenario.name));
            return ExitCode::SUCCESS;
        }
        let chosen = |scenario: &&Scenario| {
            words.is_empty()
                || words
                    .iter()
                    .any(|word| scenario.name.contains(word.as_str()))
        };
        let chosen: Vec<Scenario> = self.scenarios.iter().filter(chosen).copied().collect();
        match self.prepare() {
            Ok(effort) => self.run_all(&chosen, effort),
            Err(Stop::Skipped(reason)) => {
                println!(
                    "{}: all {} scenarios skipped: {reason}",
                    self.name,
                    chosen.len()
                );
                ExitCode::SUCCESS
            }
            Err(Stop::Failed(reason)) => {
                println!("{}: FAILED before the first scenario: {reason}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn prepare(&self) -> Outcome<Effort> {
        let effort = Effort::from_environment().map_err(Stop::Failed)?;
        if effort < self.effort {
            let reason = "only on request, because it takes minutes: set WIREMESH_INTEROP=all \
                          (or full) to run it";
            return Err(Stop::Skipped(reason.to_owned()));
        }
        programs::check_basics()?;
        match self.make {
            Make::WireguardGo => programs::wireguard_go().map(drop)?,
            Make::Boringtun => programs::boringtun().map(drop)?,
            Make::Kernel => {}
        }
        clean_up_after_dead_runs();
        if self.our_side()? == OurSide::Command {
            programs::wiremesh()?;
        }
        Ok(effort)
    }

    fn run_all(&self, chosen: &[Scenario], effort: Effort) -> ExitCode {
        println!(
            "{}: {} scenarios, {effort:?}, our side: {:?}",
            self.name,
            chosen.len(),
            self.our_side().ok()
        );
        let ends = if self.make == Make::Kernel {
            // One guest for all of them, one after the other.
            match self.arena() {
                Ok(arena) => chosen
                    .iter()
                    .map(|one| run_in(&arena, one, effort))
                    .collect(),
                Err(stop) => vec![report("the guest", Instant::now(), Err(stop))],
            }
        } else {
            self.run_beside_each_other(chosen, effort)
        };
        let count = |end: End| ends.iter().filter(|one| **one == end).count();
        let failed = count(End::Failed);
        println!(
            "{}: {} passed, {} skipped, {failed} failed",
            self.name,
            count(End::Passed),
            count(End::Skipped)
        );
        let scratch = programs::scratch_folder();
        if failed == 0 {
            scratch
                .and_then(|folder| Ok(std::fs::remove_dir_all(folder)?))
                .ok();
            return ExitCode::SUCCESS;
        }
        println!("logs and captures: {scratch:?}");
        ExitCode::FAILURE
    }

    fn arena(&self) -> Outcome<Arena> {
        Arena::new(self.make, self.our_side()?, self.helpers)
    }

    fn our_side(&self) -> Outcome<OurSide> {
        self.our_side.map_or_else(our_side, Ok)
    }

    fn run_beside_each_other(&self, chosen: &[Scenario], effort: Effort) -> Vec<End> {
        let run = |scenario: &Scenario| {
            let start = Instant::now();
            match self.arena() {
                Ok(arena) => run_in(&arena, scenario, effort),
                Err(stop) => report(scenario.name, start, Err(stop)),
            }
        };
        std::thread::scope(|scope| {
            let waiting = chosen.iter().filter(|scenario| scenario.waits);
            let waiting: Vec<_> = waiting
                .map(|scenario| scope.spawn(move || run(scenario)))
                .collect();
            let busy = chosen.iter().filter(|scenario| !scenario.waits);
            let mut ends: Vec<End> = busy.map(run).collect();
            ends.extend(
                waiting
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or(End::Failed)),
            );
            ends
        })
    }
}

/// What runs on our side, from `WIREMESH_INTEROP_OUR_SIDE`: the command line program, unless it is
/// `embedded` or `stand-in`. Where a scenario fails with the stand-in too, the laboratory is at
/// fault and not the product.
fn our_side() -> Outcome<OurSide> {
    match std::env::var("WIREMESH_INTEROP_OUR_SIDE").as_deref() {
        Err(_) | Ok("" | "command") => Ok(OurSide::Command),
        Ok("embedded") => Ok(OurSide::Embedded),
        Ok("stand-in") => Ok(OurSide::StandIn),
        Ok(word) => Err(Stop::Failed(format!(
            "WIREMESH_INTEROP_OUR_SIDE={word}: it is command, embedded or stand-in"
        ))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Skipped,
    Failed,
}

fn run_in(arena: &Arena, scenario: &Scenario, effort: Effort) -> End {
    let start = Instant::now();
    let context = Context {
        arena,
        effort,
        name: scenario.name,
    };
    let run = AssertUnwindSafe(|| (scenario.run)(&context));
    let outcome = std::panic::catch_unwind(run)
        .unwrap_or_else(|_| Err(Stop::Failed("it panicked, see above".to_owned())));
    report(scenario.name, start, outcome)
}

fn report(name: &str, start: Instant, outcome: Outcome) -> End {
    let seconds = start.elapsed().as_secs_f32();
    match outcome {
        Ok(()) => {
            println!("  ok       {name} ({seconds:.1} s)");
            End::Passed
        }
        Err(Stop::Skipped(reason)) => {
            println!("  skipped  {name}: {reason}");
            End::Skipped
        }
        Err(Stop::Failed(reason)) => {
            println!("  FAILED   {name} ({seconds:.1} s): {reason}");
            End::Failed
        }
    }
}
