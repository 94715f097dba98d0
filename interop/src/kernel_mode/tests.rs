//! What is proven of nodes in kernel mode.

use std::time::{Duration, Instant};

use crate::kernel_mode::pairs::{Kernels, Mixed, SOON};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::runner::Context;

/// A session under the boot key is there, nobody answers control messages, and applications get
/// nothing through. Then the node starts.
pub fn with_engine(context: &Context<'_>) -> Outcome {
    for kernel_is_a in [true, false] {
        let pair = Mixed::prepare(context.arena, kernel_is_a, None)?;
        wait_for("a handshake", Duration::from_secs(20), || {
            pair.kernel.had_handshake().then_some(())
        })?;
        ensure(pair.kernel.shown()?.0.is_none(), "there is a PSK already")?;
        let through = pair.kernel.pings(3)? || pair.engine_pings(2)?;
        ensure(!through, "applications got through under the boot key")?;
        pair.kernel.start()?;
        let took = pair.wait_until_up(0)?;
        let (psk, allowed) = pair.kernel.shown()?;
        ensure(psk.is_some(), "no PSK in the kernel")?;
        ensure(
            allowed.split(',').count() == 3,
            format!("allowed IPs: {allowed}"),
        )?;
        let through = pair.kernel.pings(5)? && pair.engine_pings(10)?;
        ensure(through, format!("up, but no pings\n{}", pair.describe()))?;
        let role = if kernel_is_a { "A" } else { "B" };
        context.say(format!(
            "the kernel is {role}: L2 {:.1} s after its node started",
            took.as_secs_f32()
        ));
    }
    Ok(())
}

/// The same with another node in kernel mode opposite.
pub fn two_kernels(context: &Context<'_>) -> Outcome {
    let pair = Kernels::prepare(context.arena, 900)?;
    wait_for("a handshake", Duration::from_secs(20), || {
        let all = pair.nodes.iter().all(|node| node.had_handshake());
        all.then_some(())
    })?;
    for node in &pair.nodes {
        ensure(node.shown()?.0.is_none(), "there is a PSK already")?;
        ensure(
            !node.pings(2)?,
            "applications got through under the boot key",
        )?;
        node.start()?;
    }
    let took = pair.wait_until_up(0)?;
    let [a, b] = &pair.nodes;
    let psk = a.shown()?.0;
    ensure(
        psk.is_some() && psk == b.shown()?.0,
        "not one PSK in both kernels",
    )?;
    for node in &pair.nodes {
        ensure(node.pings(5)?, format!("no pings\n{}", pair.describe()))?;
    }
    context.say(format!("L2 after {:.1} s", took.as_secs_f32()));
    Ok(())
}

/// SIGKILL of the node in kernel mode, whose slot and allowed IPs stay as they are; and of our
/// engine, or of the other node.
pub fn killed(context: &Context<'_>) -> Outcome {
    for kernel_is_a in [true, false] {
        let mut pair = Mixed::up(context.arena, kernel_is_a, None)?;
        let role = if kernel_is_a { "A" } else { "B" };
        pair.kernel.kill()?;
        ensure(
            pair.kernel.pings(2)?,
            "without its node the kernel goes on under its key",
        )?;
        pair.kernel.start()?;
        wait_for("it to begin again", Duration::from_secs(20), || {
            (!pair.kernel.state().is_empty()).then_some(())
        })?;
        let took = pair.wait_until_up(0)?;
        ensure(pair.kernel.pings(3)?, pair.describe())?;
        context.say(format!(
            "the kernel is {role}; its node was killed: up {:.1} s after its start",
            took.as_secs_f32()
        ));
        // Who has something to send finds out: by silence, or because it knocks.
        for kernel_sends in [true, false] {
            pair.engine.restart()?;
            let start = Instant::now();
            let up = || {
                let answered = match kernel_sends {
                    true => pair.kernel.ping(1, "1").ok()?.answered == 1,
                    false => pair.engine_pings(1).ok()?,
                };
                (answered && pair.is_up()).then_some(())
            };
            if wait_for("pings", SOON, up).is_err() {
                return fail(format!("no pings\n{}", pair.describe()));
            }
            let took = start.elapsed().as_secs_f32();
            ensure(pair.kernel.pings(3)?, pair.describe())?;
            ensure(pair.engine_pings(10)?, pair.describe())?;
            let sender = if kernel_sends { "kernel" } else { "engine" };
            context.say(format!(
                "the kernel is {role}; the engine was killed and the {sender} sends: pings \
                 after {took:.1} s"
            ));
        }
    }
    two_killed(context)
}

fn two_killed(context: &Context<'_>) -> Outcome {
    let pair = Kernels::up(context.arena, 900)?;
    for (who, name) in ["A", "B"].into_iter().enumerate() {
        let before = pair.nodes[who].shown()?.0;
        pair.nodes[who].kill()?;
        pair.nodes[who].start()?;
        wait_for("it to begin again", Duration::from_secs(20), || {
            (!pair.nodes[who].state().is_empty()).then_some(())
        })?;
        let took = pair.wait_until_up(0)?;
        ensure(
            pair.nodes[who].shown()?.0 != before,
            "the PSK of before is still there",
        )?;
        for node in &pair.nodes {
            ensure(node.pings(3)?, pair.describe())?;
        }
        context.say(format!(
            "two kernels; {name} was killed: up {:.1} s after its start",
            took.as_secs_f32()
        ));
    }
    Ok(())
}

/// Three pairs at once, because it takes two rekeys of 120 s: the first begins an exchange, the
/// second uses its key.
pub fn rotation(context: &Context<'_>) -> Outcome {
    const EVERY: &str = "0.25";
    const COUNT: u32 = 1_060;
    let arena = context.arena;
    let mixed = [
        Mixed::up(arena, true, Some(30))?,
        Mixed::up(arena, false, Some(30))?,
    ];
    let two = Kernels::up(arena, 30)?;
    let nodes = [&mixed[0].kernel, &mixed[1].kernel, &two.nodes[0]];
    let names = ["kernel A, engine B", "engine A, kernel B", "two kernels"];
    let before = nodes.map(|node| node.epoch());
    let psks: Vec<_> = nodes.iter().map(|node| node.shown()).collect();
    let lost: Vec<Outcome<_>> = std::thread::scope(|scope| {
        let threads = nodes.map(|node| scope.spawn(move || node.ping(COUNT, EVERY)));
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .collect()
    });
    for (index, pings) in lost.into_iter().enumerate() {
        let (node, name) = (nodes[index], names[index]);
        let pings = pings?;
        context.say(format!(
            "{name}: {pings:?}, epoch {} to {}",
            before[index],
            node.epoch()
        ));
        ensure(
            node.epoch() > before[index],
            format!("{name}: no rotation\n{}", node.log()),
        )?;
        let old = psks[index].as_ref().ok();
        ensure(
            old != node.shown().as_ref().ok(),
            format!("{name}: the PSK of before is in the kernel"),
        )?;
        ensure(
            pings.answered == pings.sent,
            format!("{name}: pings were lost\n{}", node.log()),
        )?;
    }
    Ok(())
}
