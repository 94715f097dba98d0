//! One node in one mode after the other.

use crate::modes::Mode;
use crate::modes::host::{HEALS, Host, Program, pair};
use crate::outcome::{Outcome, ensure, fail, wait_for};

/// Identity, address and peers stay; without the helper it is said, and nothing stands in.
pub fn same_node(with_kernel: bool) -> Outcome {
    let [mut a, mut b] = pair()?;
    b.start(Mode::Rootless)?;
    let mut modes = vec![Mode::Tun, Mode::Rootless, Mode::Tun];
    if with_kernel {
        modes.extend([Mode::Kernel, Mode::Rootless, Mode::Kernel, Mode::Tun]);
    }
    let mut before = None;
    for mode in modes {
        a.start_as(mode, Program::Command)?;
        let status = a.status()?;
        ensure(status["mode"] == mode.word(), format!("{status}"))?;
        ensure(
            a.has_interface() == (mode != Mode::Rootless),
            "an interface or none",
        )?;
        let now = facts(&a)?;
        let before = before.get_or_insert_with(|| now.clone());
        ensure(*before == now, format!("{now} is not {before}"))?;
        let (_, took) = wait_for("pings", HEALS, || b.node_pings(&a, 3).ok())
            .or_else(|_| fail(format!("{}: {:?}", mode.word(), a.status())))?;
        println!(
            "    same_node: in {} mode reached after {took:?}",
            mode.word()
        );
    }
    // What is missing is said, and nothing stands in for it.
    a.kill_node();
    a.kill_helper();
    for mode in [Mode::Tun, Mode::Kernel] {
        for program in [Program::Command, Program::Library] {
            a.try_start(mode, program)?;
            let said = a.log();
            ensure(
                !a.is_running(),
                format!("it runs without the helper: {said}"),
            )?;
            ensure(
                said.contains("wiremesh install"),
                format!("no way out in: {said}"),
            )?;
        }
    }
    Ok(())
}

fn facts(host: &Host) -> Outcome<String> {
    let status = host.status()?;
    let peer = &status["peers"][0]["node_id"];
    Ok(format!(
        "{} {} {peer}",
        status["node_id"], status["addresses"]
    ))
}
