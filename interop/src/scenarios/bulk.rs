//! Much UDP from a real program on their side to our echo, every byte of it checked.

use crate::outcome::{Outcome, wait_for};
use crate::pair::{Initiator, Options, Pair};
use crate::runner::{Context, Effort};
use crate::stock::Make;

const MIB: u64 = 1 << 20;

/// The stock program began the session.
pub fn they_initiate(context: &Context<'_>) -> Outcome {
    let pair = Pair::start(context.arena, Initiator::They, &Options::default())?;
    pair.they_reach_us()?;
    load(context, &pair)
}

/// Our node began the session.
pub fn we_initiate(context: &Context<'_>) -> Outcome {
    let pair = Pair::start(context.arena, Initiator::We, &Options::default())?;
    let limit = std::time::Duration::from_secs(15);
    wait_for("our ping", limit, || pair.we_reach_them().ok())?;
    load(context, &pair)
}

fn load(context: &Context<'_>, pair: &Pair) -> Outcome {
    let bytes = match (context.arena.make, context.effort) {
        (Make::Kernel, Effort::Full) => 64 * MIB,
        (Make::Kernel, _) => 16 * MIB,
        (_, Effort::Full) => 1024 * MIB,
        (_, _) => 32 * MIB,
    };
    context.say(pair.they_load(bytes, 1200, 64)?);
    Ok(())
}
