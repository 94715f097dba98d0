//! Ordinary programs, which know nothing of us, between two hosts with interfaces.

use crate::modes::host::{HEALS, Host, Program, START, pair, python};
use crate::modes::{IN_GUEST, Mode};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::process::{Running, text_of};

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

/// A file each way: SCTP has no half-closed association, so nothing is echoed.
fn sctp(mode: Mode, a: &Host, b: &Host) -> Outcome {
    let file = a.file("data");
    let make = format!("head -c 1000000 /dev/urandom >{file} && sha256sum <{file}");
    let sum = a.place.run(&["sh", "-c", &make])?.trim().to_owned();
    let (to, from) = (b.overlay()?, format!("OPEN:{file}"));
    let serves = |words: &[&str]| -> Outcome<(Running, bool)> {
        let server = b.daemon("socat", &[&["-d", "-d", "-u"], words].concat())?;
        let (there, _) = wait_for("the server", START, || {
            let log = server.log_text();
            let refused = log.contains("not supported");
            (refused || log.contains("listening on")).then_some(!refused)
        })
        .or_else(|_| fail(server.log_text()))?;
        Ok((server, there))
    };
    let (server, there) = serves(&["SCTP6-LISTEN:8090", "SYSTEM:sha256sum"])?;
    if !there && std::env::var_os(IN_GUEST).is_none() {
        println!(
            "    {}: no SCTP in this kernel; the guest's has it",
            mode.word()
        );
        return Ok(());
    }
    let dial = format!("SCTP6-CONNECT:[{to}]:8090");
    a.place.run(&["socat", "-u", &from, &dial])?;
    wait_for("the file", START, || {
        server.log_text().contains(&sum).then_some(())
    })
    .or_else(|_| fail(format!("SCTP: not {sum}: {}", server.log_text())))?;
    let (_server, _) = serves(&[&from, "SCTP6-LISTEN:8091"])?;
    let line = format!("socat -u SCTP6-CONNECT:[{to}]:8091 - | sha256sum");
    let back = a.as_user(60, &["sh", "-c", &line]).output()?;
    let back = text_of(&back);
    ensure(back == sum, format!("SCTP: {back} is not {sum}"))?;
    println!("    {}: SCTP: a megabyte each way", mode.word());
    Ok(())
}
