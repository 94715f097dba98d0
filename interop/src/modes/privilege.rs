//! What node and helper may, from `/proc`.

use crate::modes::Mode;
use crate::modes::host::{Program, pair};
use crate::outcome::{Outcome, ensure, fail};

/// Bit 12 is CAP_NET_ADMIN.
const NET_ADMIN: u64 = 1 << 12;

/// The node has no capability in any set, the helper CAP_NET_ADMIN alone; neither can get more.
pub fn least(mode: Mode) -> Outcome {
    let [mut a, _b] = pair()?;
    for program in [Program::Library, Program::Command] {
        a.start_as(mode, program)?;
        let [Some(node), helper] = a.processes() else {
            return fail("it runs");
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let held = held(node, set)?;
            ensure(held == 0, format!("the node's {set} is {held:x}"))?;
        }
        let Some(helper) = helper else {
            ensure(mode == Mode::Rootless, "no helper runs")?;
            continue;
        };
        for set in ["CapPrm", "CapEff"] {
            let held = held(helper, set)?;
            ensure(held == NET_ADMIN, format!("the helper's {set} is {held:x}"))?;
        }
        for set in ["CapInh", "CapAmb"] {
            let held = held(helper, set)?;
            let more = held & !NET_ADMIN != 0;
            ensure(!more, format!("the helper's {set} is {held:x}"))?;
        }
        for (field, value) in [("NoNewPrivs", 1), ("Seccomp", 2)] {
            let is = held(helper, field)?;
            ensure(is == value, format!("the helper's {field} is {is}"))?;
        }
    }
    Ok(())
}

/// A hexadecimal field of the status of a process.
fn held(process: u32, field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let Some(hex) = line.and_then(|line| line.strip_prefix(':')) else {
        return fail(format!("no {field} in /proc/{process}/status"));
    };
    Ok(u64::from_str_radix(hex.trim(), 16)?)
}
