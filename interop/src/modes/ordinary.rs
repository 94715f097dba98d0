//! Ordinary programs, which know nothing of us, between two hosts with interfaces.

use crate::modes::host::{HEALS, Host, Program, START, pair, python};
use crate::modes::{IN_GUEST, Mode};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::process::text_of;

/// Ping, a megabyte of TCP checked byte by byte, iperf3 both ways, and SCTP where the kernel has it.
pub fn programs(mode: Mode) -> Outcome {
    let [mut a, mut b] = pair()?;
    for host in [&mut a, &mut b] {
        host.start_as(mode, Program::Command)?;
    }
    wait_for("pings", HEALS, || {
        let both = a.host_pings(&b).ok()? && b.host_pings(&a).ok()?;
        both.then_some(())
    })
    .or_else(|_| {
        fail(format!(
            "{:?}\n{}\n{:?}\n{}",
            a.status(),
            a.log(),
            b.status(),
            b.log()
        ))
    })?;
    let level = a.status_of(&b)?["level"].to_string();
    ensure(level.contains('2'), format!("the level is {level}"))?;
    tcp_megabyte(&a, &b)?;
    for direction in [&[][..], &["-R"]] {
        iperf(mode, &a, &b, direction)?;
    }
    sctp(mode, &a, &b)
}

fn tcp_megabyte(a: &Host, b: &Host) -> Outcome {
    let to = b.overlay()?;
    let serve = format!(
        "import socket\ns = socket.create_server(('{to}', 8080), family=socket.AF_INET6)\n\
         print('ready', flush=True)\nc, _ = s.accept()\n\
         while True:\n    d = c.recv(65536)\n    if not d: break\n    c.sendall(d)\n"
    );
    let python = python().unwrap_or_default();
    let server = b.daemon(&python, &["-c", &serve])?;
    wait_for("the server", START, || {
        server.log_text().contains("ready").then_some(())
    })?;
    let ask = format!(
        "import socket, threading\ndata = bytes(range(256)) * 4096\n\
         s = socket.create_connection(('{to}', 8080), 20)\n\
         t = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))\n\
         t.start()\ngot = b''\n\
         while True:\n    d = s.recv(65536)\n    if not d: break\n    got += d\n\
         t.join()\nassert got == data, len(got)\nprint('same', len(got))\n"
    );
    let said = a.as_user(90, &[&python, "-c", &ask]).output()?;
    let said = text_of(&said);
    ensure(said == "same 1048576", format!("it said: {said}"))
}

fn iperf(mode: Mode, a: &Host, b: &Host, direction: &[&str]) -> Outcome {
    let to = b.overlay()?.to_string();
    let server = b.daemon("iperf3", &["-s", "-1", "-p", "5201", "--forceflush"])?;
    wait_for("iperf3", START, || {
        server.log_text().contains("listening").then_some(())
    })?;
    let words = ["iperf3", "-c", &to, "-p", "5201", "-n", "4M", "-J"];
    let output = a.as_user(90, &[&words, direction].concat()).output()?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    let Some(bits) = bits.filter(|bits| *bits > 1e5) else {
        return fail(text_of(&output));
    };
    println!(
        "    {}: TCP {direction:?}: {:.0} Mbit/s",
        mode.word(),
        bits / 1e6
    );
    Ok(())
}

fn sctp(mode: Mode, a: &Host, b: &Host) -> Outcome {
    let to = b.overlay()?;
    let server = b.daemon("socat", &["-d", "-d", "SCTP6-LISTEN:8090", "EXEC:cat"])?;
    let there = wait_for("the server", START, || {
        let log = server.log_text();
        let refused = log.contains("not supported");
        (refused || log.contains("listening")).then_some(!refused)
    });
    let (there, _) = there.or_else(|_| fail(server.log_text()))?;
    if !there && std::env::var_os(IN_GUEST).is_none() {
        println!(
            "    {}: no SCTP in this kernel; the guest's has it",
            mode.word()
        );
        return Ok(());
    }
    let line =
        format!("head -c 300000 /dev/zero | socat -t 20 - SCTP6-CONNECT:[{to}]:8090 | wc -c");
    let output = a.as_user(90, &["sh", "-c", &line]).output()?;
    let said = text_of(&output);
    ensure(
        said == "300000",
        format!("SCTP: {said}\n{}", server.log_text()),
    )?;
    println!("    {}: SCTP: 300000 bytes there and back", mode.word());
    Ok(())
}
