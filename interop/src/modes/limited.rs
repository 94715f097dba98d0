//! The rate of a node in kernel mode: kept by the kernel, by class.
//!
//! The guest's processor is emulated, so nothing is compared but what the same link does.

use crate::modes::Mode;
use crate::modes::host::{HEALS, Host, Program, START, pair};
use crate::outcome::{Outcome, ensure, fail, wait_for};

/// Far below what the guest can carry.
const RATE_BITS: u64 = 1_000_000;
/// IPV6_TCLASS of EF and of CS1.
const EF: &str = "184";
const CS1: &str = "32";
/// CAKE's tins with `diffserv4`.
const BULK: usize = 0;
const VOICE: usize = 3;

/// TCP gets what the rate leaves it; under a flood of bulk, urgent pings do not wait for it.
pub fn rate(_: Mode) -> Outcome {
    let [mut a, mut b] = pair()?;
    a.rate_bits = Some(RATE_BITS);
    for host in [&mut a, &mut b] {
        host.start_as(Mode::Kernel, Program::Library)?;
    }
    wait_for("pings", HEALS, || a.host_pings(&b).ok()?.then_some(()))?;
    let (limited, other) = (discipline(&a)?, discipline(&b)?);
    let rate = limited["options"]["bandwidth"].as_u64();
    let is_kept = limited["kind"] == "cake" && rate == Some(RATE_BITS / 8);
    ensure(is_kept, format!("it is {limited}"))?;
    ensure(other["kind"] != "cake", "the other host was given no rate")?;

    let tcp = iperf(&a, &b, &["-S", CS1, "-t", "8"])?;
    let rate = RATE_BITS as f64;
    println!(
        "    TCP at a rate of {:.1}: {:.2} Mbit/s",
        rate / 1e6,
        tcp / 1e6
    );
    ensure(
        (0.6..1.0).contains(&(tcp / rate)),
        format!("TCP: {tcp} bit/s"),
    )?;
    urgent_beside_bulk(&a, &b)
}

/// Bulk at four times the rate, and pings that are marked as urgent.
fn urgent_beside_bulk(a: &Host, b: &Host) -> Outcome {
    let idle = urgent_ping(a, b)?;
    let offered = (4 * RATE_BITS).to_string();
    let to = b.overlay()?.to_string();
    let _server = b.daemon("iperf3", &["-s", "-1", "-p", "5202"])?;
    let there = || {
        b.place
            .succeeds(20, &["sh", "-c", "ss -ltn | grep -q :5202"])
    };
    wait_for("iperf3", START, || there().then_some(()))?;
    let words = ["-c", &to, "-p", "5202", "-u", "-b", &offered, "-l", "1200"];
    let _flood = a.daemon("iperf3", &[&words[..], &["-S", CS1, "-t", "60"]].concat())?;
    // CAKE's own figures: until the flood is what waits.
    wait_for("a queue", START, || {
        (delay(a, BULK).ok()? > 20_000).then_some(())
    })?;
    let loaded = urgent_ping(a, b)?;
    let (bulk, voice) = (delay(a, BULK)?, delay(a, VOICE)?);
    println!(
        "    urgent ping: {idle:.1} ms, beside bulk {loaded:.1} ms; in the queue: \
         {voice} us, bulk {bulk} us"
    );
    // A packet of bulk takes 10 ms; the ping goes before all but the one that is being sent.
    ensure(loaded < idle + 40.0, "urgent pings wait behind bulk")?;
    ensure(voice * 2 < bulk, "urgent packets wait as long as bulk")
}

fn urgent_ping(a: &Host, b: &Host) -> Outcome<f64> {
    let to = b.overlay()?.to_string();
    let ping = ["ping", "-n", "-q", "-c", "40", "-i", "0.2", "-Q", EF, &to];
    let said = a.place.run(&ping)?;
    // rtt min/avg/max/mdev = 1.0/2.0/3.0/0.5 ms
    let average = said
        .split("= ")
        .nth(1)
        .and_then(|times| times.split('/').nth(1));
    match average.and_then(|text| text.parse().ok()) {
        Some(average) => Ok(average),
        None => fail(format!("ping said: {said}")),
    }
}

fn iperf(a: &Host, b: &Host, words: &[&str]) -> Outcome<f64> {
    let to = b.overlay()?.to_string();
    let server = b.daemon("iperf3", &["-s", "-1", "-p", "5201", "--forceflush"])?;
    wait_for("iperf3", START, || {
        server.log_text().contains("listening").then_some(())
    })?;
    let client = ["iperf3", "-c", &to, "-p", "5201", "-J"];
    let output = a.as_user(90, &[&client, words].concat()).output()?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.map_or_else(|| fail(said.to_string()), Ok)
}

/// The queueing discipline of the interface, as `tc` shows it.
fn discipline(host: &Host) -> Outcome<serde_json::Value> {
    let shown = host
        .place
        .run(&["tc", "-s", "-j", "qdisc", "show", "dev", "wm0"])?;
    let all: serde_json::Value = serde_json::from_str(&shown)?;
    Ok(all[0].clone())
}

/// How long packets of a class waited lately, microseconds.
fn delay(host: &Host, tin: usize) -> Outcome<u64> {
    let discipline = discipline(host)?;
    let delay = discipline["tins"][tin]["avg_delay_us"].as_u64();
    delay.map_or_else(|| fail(discipline.to_string()), Ok)
}
