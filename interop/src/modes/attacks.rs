//! Attacks on a node with an interface, and on its host's programs. Each is tried without the guard
//! too, and gets through: so what holds is the guard.

use std::net::Ipv6Addr;

use crate::keys::control_address;
use crate::modes::Mode;
use crate::modes::host::{HEALS, Host, PORT, START, USER, hosts, pair, pair_up, python};
use crate::netns::unique_name;
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::process::{Running, text_of};
use crate::programs;

/// A user of the host who is neither root nor the node's.
const STRANGER: &str = "65532";
/// The port of streams, both ends.
const STREAMS: u16 = 2708;
const BURST: u64 = 200;

/// Runs a Python program on a host as some user; its output, whether it fails or not.
fn python_says(host: &Host, user: &str, program: &str) -> Outcome<String> {
    let python = python().unwrap_or_default();
    let output = host.as_id(user, 60, &[&python, "-c", program]).output()?;
    Ok(text_of(&output))
}

/// A Python program that runs until it is dropped, once it has printed `ready`.
fn python_serves(host: &Host, program: &str) -> Outcome<Running> {
    let server = host.daemon(&python().unwrap_or_default(), &["-c", program])?;
    wait_for("the server", START, || {
        server.log_text().contains("ready").then_some(())
    })
    .or_else(|_| fail(server.log_text()))?;
    Ok(server)
}

/// wireguard-go with the keys of a host, all overlay addresses at one peer; both addresses of its
/// key are its own.
fn stock(host: &Host, peer: &Host) -> Outcome<(Running, String)> {
    let name = unique_name();
    let program = programs::wireguard_go()?;
    let running = host.daemon(&program.to_string_lossy(), &["-f", &name])?;
    wait_for("wireguard-go", START, || {
        host.place
            .succeeds(10, &["wg", "show", &name])
            .then_some(())
    })?;
    let overlay = host.overlay()?;
    let control = control_address(&host.keys.public)?;
    let script = format!(
        "set -e\necho '{}' | wg set {name} listen-port {PORT} private-key /proc/self/fd/0\n\
         wg set {name} peer {} endpoint {}:{PORT} persistent-keepalive 1 allowed-ips fd77:6d00::/24\n\
         ip addr add {overlay}/128 dev {name} nodad\n\
         ip addr add {control}/128 dev {name} nodad\n\
         ip link set {name} mtu 1420 up\nip route add fd77:6d00::/24 dev {name}\n",
        host.keys.secret, peer.keys.public, peer.address
    );
    host.place.run(&["sh", "-c", &script])?;
    Ok((running, name))
}

/// A stock WireGuard that nobody has marked as one has sessions, but below the level: no byte of it
/// reaches a server of the host, from its overlay address or its control address.
pub fn below_the_level(mode: Mode) -> Outcome {
    let [mut a, b] = pair()?;
    a.start(mode)?;
    let own = a.overlay()?;
    let own_control = control_address(&a.keys.public)?;
    let their_control = control_address(&b.keys.public)?;
    let server = python_serves(
        &a,
        "import socket\ns = socket.create_server(('::', 8080), family=socket.AF_INET6)\n\
         print('ready', flush=True)\n\
         while True:\n    print('DELIVERED', s.accept()[1], flush=True)\n",
    )?;
    let (_stock, name) = stock(&b, &a)?;
    wait_for("a session", HEALS, || {
        let shown = b.place.run(&["wg", "show", &name, "latest-handshakes"]);
        shown
            .is_ok_and(|at| !at.trim().ends_with("\t0"))
            .then_some(())
    })?;
    let dials = |from: Ipv6Addr, to: Ipv6Addr, seconds: u32| -> Outcome<bool> {
        let program = format!(
            "import socket\nsocket.create_connection(('{to}', 8080), {seconds}, ('{from}', 0))\n\
             print('reached')"
        );
        Ok(python_says(&b, "0", &program)? == "reached")
    };
    let ways = [
        (b.overlay()?, own),
        (their_control, own),
        (their_control, own_control),
        (b.overlay()?, own_control),
    ];
    for (from, to) in ways {
        ensure(!dials(from, to, 3)?, format!("{from} reached {to}"))?;
    }
    let log = server.log_text();
    ensure(!log.contains("DELIVERED"), format!("it was reached: {log}"))?;
    if mode == Mode::Kernel {
        // The kernel lets through what is in the allowed IPs, and the table the rest.
        a.place.run(&["nft", "flush", "ruleset"])?;
        ensure(
            dials(their_control, own_control, 20)?,
            "without the table the control address does not get through: nothing was proven",
        )?;
    }
    // What was tried was not wrong: named as stock, it gets through.
    let mut a = a;
    a.knows_as(&b, true, None);
    a.start(mode)?;
    let (_, took) = wait_for("it to get through where it may", HEALS, || {
        dials(b.overlay().ok()?, own, 10).ok()?.then_some(())
    })?;
    println!(
        "    {}: named as stock, it is in after {took:?}",
        mode.word()
    );
    Ok(())
}

/// Another user of the host binds a peer's address and sends to our stream port.
pub fn as_a_peer(mode: Mode) -> Outcome {
    let [a, b] = pair_up(mode)?;
    a.heals_with(&b)?;
    let (from, to) = (b.overlay()?, a.overlay()?);
    // IPV6_FREEBIND is 78; a peer's streams come from the stream port.
    let send = |from: &str, port: u16| {
        format!(
            "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.IPPROTO_IPV6, 78, 1)\ns.bind(('{from}', {port}))\nrefused = 0\n\
             for _ in range({BURST}):\n    try: s.sendto(b'as if', ('{to}', {STREAMS}))\n\
             \x20   except OSError: refused += 1\nprint('refused', refused)\n"
        )
    };
    for (address, port) in [
        (from.to_string(), STREAMS),
        (from.to_string(), 0),
        (to.to_string(), 0),
    ] {
        let before = reached(&a)?;
        let said = python_says(&a, STRANGER, &send(&address, port))?;
        let after = reached(&a)?;
        ensure(
            said.starts_with("refused"),
            format!("nothing was tried: {said}"),
        )?;
        ensure(
            after - before < BURST / 2,
            format!(
                "{address}:{port}: of {BURST} datagrams {} arrived, {said}",
                after - before
            ),
        )?;
        a.streams(&b, 1_000, 10)?;
    }
    a.place.run(&["nft", "flush", "ruleset"])?;
    let before = reached(&a)?;
    let said = python_says(&a, STRANGER, &send(&from.to_string(), 0))?;
    wait_for("datagrams without the table", START, || {
        (reached(&a).ok()? - before >= BURST).then_some(())
    })
    .or_else(|_| {
        fail(format!(
            "none came without the table: nothing was proven; {said}"
        ))
    })
    .map(drop)
}

/// How many UDP datagrams over IPv6 came to the ports of a host, open or closed, and were read.
fn reached(host: &Host) -> Outcome<u64> {
    let text = host.place.run(&["cat", "/proc/net/snmp6"])?;
    let fields = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let counts = fields.filter(|(name, _)| matches!(*name, "Udp6InDatagrams" | "Udp6NoPorts"));
    Ok(counts
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .sum())
}

/// Another user of the host dials a peer's stream port. The peer is a stock one, which shows what
/// arrives.
pub fn as_the_node(mode: Mode) -> Outcome {
    let [mut a, b] = hosts::<2>()?;
    a.knows_as(&b, true, None);
    a.start(mode)?;
    let (_stock, _) = stock(&b, &a)?;
    let to = b.overlay()?;
    let server = python_serves(
        &b,
        &format!(
            "import select, socket\n\
             ss = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]\n\
             ss[0].bind(('::', {STREAMS})); ss[1].bind(('::', {}))\nprint('ready', flush=True)\n\
             while True:\n    for s in select.select(ss, [], [])[0]:\n\
             \x20       d, _ = s.recvfrom(100)\n\
             \x20       print('port', s.getsockname()[1], d.decode(), flush=True)\n",
            STREAMS + 1
        ),
    )?;
    let own_control = control_address(&a.keys.public)?.to_string();
    let send = |user: &str, from: (&str, u16), port: u16, word: &str| {
        let (address, from) = from;
        let program = format!(
            "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.IPPROTO_IPV6, 78, 1)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
             s.bind(('{address}', {from}))\ns.sendto(b'{word}', ('{to}', {port}))\n"
        );
        python_says(&a, user, &program)
    };
    let arrives = |user: &str, port: u16, word: &str| {
        wait_for("it to arrive", HEALS, || {
            send(user, ("::", 0), port, word).ok()?;
            let line = format!("port {port} {word}");
            server.log_text().contains(&line).then_some(())
        })
        .or_else(|_| fail(format!("{word} does not arrive: {}", server.log_text())))
        .map(drop)
    };
    arrives(STRANGER, STREAMS + 1, "other-port")?;
    let mut said = Vec::new();
    let tries = [
        (("::", 0), STREAMS),
        (("::", STREAMS), STREAMS),
        ((&*own_control, STREAMS), STREAMS),
        ((&*own_control, STREAMS), STREAMS + 1),
    ];
    for (from, port) in tries {
        said.push(send(STRANGER, from, port, "attack")?);
    }
    arrives(STRANGER, STREAMS + 1, "after")?;
    let log = server.log_text();
    ensure(!log.contains("attack"), format!("it arrived: {log}"))?;
    for (text, (from, port)) in said.iter().zip(tries) {
        let how = text.lines().last().filter(|line| line.contains("Error"));
        let how = how.unwrap_or("dropped");
        println!("    {}: from {from:?} to {port}: {how}", mode.word());
    }
    a.place.run(&["nft", "flush", "ruleset"])?;
    match mode {
        // The engine is the second guard.
        Mode::Rootless | Mode::Tun => {
            send(USER, ("::", 0), STREAMS, "attack")?;
            arrives(STRANGER, STREAMS + 1, "flushed")?;
            ensure(
                !server.log_text().contains("attack"),
                "the engine let it through",
            )
        }
        Mode::Kernel => arrives(STRANGER, STREAMS, "without-table"),
    }
}
