//! Whole networks of the simulator: the input is the seed, the time of chaos, and the script that
//! steers the first decisions. Every invariant of the simulator must hold.

use std::time::Duration;

use wiremesh_sim::{Options, Simulation};

use crate::input::Input;

/// Runs one simulation, some of them twice: the second run must be the first again.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let seed = u64::from(input.u16());
    let setting = input.u8();
    let options = Options {
        chaos: Some(Duration::from_secs(u64::from(setting >> 2))),
        script: input.rest().to_vec(),
        ..Options::default()
    };
    let report = match Simulation::run(seed, &options) {
        Ok(report) => report,
        Err(failure) => panic!(
            "script {:02x?}, chaos {:?}: {failure}",
            options.script, options.chaos
        ),
    };
    if setting & 3 == 3 {
        let again = Simulation::run(seed, &options);
        assert_eq!(again.ok(), Some(report), "one input, two runs");
    }
}
