//! `wiremesh bench` between two real processes: what it reports, and who gets nothing from it.
//!
//! Figures are checked for being there and possible, never for being good.

#[path = "support/home.rs"]
mod home;

use home::{Home, Running, free_port};
use serde_json::Value;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use wiremesh::{Node, Ticket, TicketSecret};

/// Every measure, and whether 0 is a possible figure.
const MEASURES: [(&str, bool); 13] = [
    ("round_trip_idle_median_seconds", false),
    ("round_trip_idle_p99_seconds", false),
    ("round_trip_stream_median_seconds", false),
    ("throughput_up_bits_per_second", false),
    ("throughput_down_bits_per_second", false),
    ("round_trip_loaded_median_seconds", false),
    ("round_trip_loaded_p99_seconds", false),
    ("datagrams_up_bits_per_second", false),
    ("datagrams_up_loss_fraction", true),
    ("datagrams_down_bits_per_second", false),
    ("datagrams_down_loss_fraction", true),
    ("largest_datagram_bytes", false),
    ("largest_connection_datagram_bytes", false),
];

/// What only connections have.
const WITHOUT_PLAIN: &str = "largest_connection_datagram_bytes";

/// Starts the side that listens; gives it with its ticket.
fn listen(home: &Home, arguments: &[&str]) -> (Running, String) {
    let fixed = ["bench", "--listen", "127.0.0.1:0"];
    let mut running = home.start(&[&fixed, arguments].concat());
    let mut ticket = String::new();
    running.stdout().read_line(&mut ticket).expect("a ticket");
    (running, ticket.trim().to_owned())
}

fn parse(report: &str) -> Value {
    assert_eq!(report.lines().count(), 1, "{report}");
    serde_json::from_str(report).expect("JSON")
}

fn is_possible(figure: &Value, zero: bool) -> bool {
    let figure = figure.as_f64().unwrap_or(-1.0);
    figure > 0.0 || (zero && figure == 0.0)
}

#[test]
fn every_measure_has_a_figure_inside_the_tunnel_and_beside_it() {
    let home = Home::new();
    let (mut listener, ticket) = listen(&home, &[]);
    let report = home.good(&["bench", &ticket, "--duration", "300ms", "--json"]);
    let report = parse(&report);
    for (name, zero) in MEASURES {
        let row = &report[name];
        assert!(is_possible(&row["tunnel"], zero), "{name}: {row}");
        if name != WITHOUT_PLAIN {
            assert!(is_possible(&row["plain"], zero), "{name}: {row}");
        }
    }
    assert_eq!(report["level"], "L2");
    assert_eq!(report["duration_seconds"], 0.3);
    let endpoint = report["endpoint"].as_str().expect("a text");
    assert!(endpoint.starts_with("127.0.0.1:"), "{endpoint}");
    let largest = &report["largest_datagram_bytes"];
    assert_eq!(largest["tunnel"], 1372.0, "what the MTU leaves");
    assert_eq!(largest["plain"], 65507.0, "what IPv4 leaves");
    assert_eq!(listener.code(), Some(0), "one client was served");
}

#[test]
fn people_get_a_table_and_the_listener_goes_on_if_told() {
    let home = Home::new();
    let (listener, ticket) = listen(&home, &["--keep"]);
    for arguments in [&[][..], &["--no-plain"]] {
        let fixed = ["bench", &ticket, "--duration", "20ms"];
        let table = home.good(&[&fixed, arguments].concat());
        let mut lines = table.lines();
        let first = lines.next().expect("a line");
        assert!(
            first.contains("level L2") && first.contains("127.0.0.1:"),
            "{table}"
        );
        let head = lines.nth(1).expect("a line");
        for title in ["MEASURE", "TUNNEL", "PLAIN", "RATIO"] {
            assert!(head.contains(title), "{table}");
        }
        assert_eq!(lines.count(), MEASURES.len(), "{table}");
        assert!(table.contains("1372 B"), "{table}");
        assert_eq!(
            table.contains("65507 B"),
            arguments.is_empty(),
            "the plain path only if wanted: {table}"
        );
    }
    listener.signal("INT");
}

/// What a datagram of the measurement looks like, but for the token.
fn forged(kind: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[16] = kind;
    bytes[20] = 1;
    bytes
}

#[test]
fn a_stranger_gets_not_a_byte_from_the_plain_ports() {
    let home = Home::new();
    let port = free_port();
    let (mut listener, ticket) = listen(&home, &["--plain-port", &port.to_string()]);
    let at = (Ipv4Addr::LOCALHOST, port);
    assert!(TcpStream::connect(at).is_err(), "open before anybody came");

    let mut client = home.start(&["bench", &ticket, "--duration", "300ms", "--json"]);
    let mut stranger = loop {
        if let Ok(stream) = TcpStream::connect(at) {
            break stream;
        }
        let ended = client.0.try_wait().expect("asked");
        assert!(ended.is_none(), "it ended without a plain port");
        std::thread::yield_now();
    };
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    for kind in 0..=6 {
        for length in [29, 64, 1_200] {
            udp.send_to(&forged(kind, length), at).expect("sent");
        }
    }
    // The job that sends, for a minute: with the token it would.
    let job = [&[0; 16][..], &[3, 0, 0, 0xea, 0x60]].concat();
    stranger.write_all(&job).expect("written");
    let ended = client.0.try_wait().expect("asked");
    assert!(ended.is_none(), "the ports were closed already");
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = stranger.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{} bytes over TCP", answer.len());

    let mut report = String::new();
    client.stdout().read_to_string(&mut report).expect("read");
    let report = parse(&report);
    // The client's own datagrams on the same port came after the stranger's, and were answered.
    let row = &report["largest_datagram_bytes"];
    assert_eq!(row["plain"], 65507.0, "{row}");
    udp.set_nonblocking(true).expect("set");
    let got = udp.recv(&mut [0; 2_000]).map_err(|error| error.kind());
    assert_eq!(got, Err(ErrorKind::WouldBlock), "an answer over UDP");
    assert_eq!(listener.code(), Some(0));
    assert!(TcpStream::connect(at).is_err(), "open after the client");
}

#[test]
fn a_plain_port_that_is_taken_is_said_on_both_sides() {
    let home = Home::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = taken.local_addr().expect("an address").port();
    let _taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("binds");
    let (mut listener, ticket) = listen(&home, &["--plain-port", &port.to_string()]);
    let report = home.good(&["bench", &ticket, "--duration", "20ms", "--json"]);
    let report = parse(&report);
    for (name, zero) in MEASURES {
        let row = &report[name];
        assert!(is_possible(&row["tunnel"], zero), "{name}: {row}");
        let reason = row["plain_missing"].as_str().expect("a reason");
        assert!(
            name == WITHOUT_PLAIN || reason.contains("could not open a"),
            "{name}: {row}"
        );
    }
    let mut told = String::new();
    listener.stderr().read_to_string(&mut told).expect("read");
    for name in ["TCP", "UDP"] {
        assert!(told.contains(&format!("cannot open {name}")), "{told}");
    }
}

/// A network of its own in which nothing gets to the port beside the tunnel.
const BLOCKED: &str = r#"
ip link set lo up
ip rule add pref 9 lookup local && ip rule del pref 0
ip rule add pref 1 ipproto udp dport 4001 blackhole
ip rule add pref 1 ipproto tcp dport 4001 blackhole
mkfifo ticket
"$0" bench --listen 127.0.0.1:0 --plain-port 4001 > ticket 2> told &
listener=$!
trap 'kill $listener 2> /dev/null || true' EXIT
read -r ticket < ticket
"$0" bench "$ticket" --duration 50ms "$@"
wait $listener
"#;

#[cfg(target_os = "linux")]
#[test]
fn a_blocked_plain_path_is_said_in_its_rows_and_the_rest_is_there() {
    let unshare = ["--user", "--map-root-user", "--net"];
    let usable = Command::new("unshare")
        .args(unshare)
        .args([
            "sh",
            "-c",
            "ip rule add pref 1 ipproto udp dport 1 blackhole",
        ])
        .output();
    match usable {
        Ok(output) if output.status.success() => {}
        other => return eprintln!("skipped: no network namespace with rules here: {other:?}"),
    }
    let home = Home::new();
    let output = Command::new("unshare")
        .args(unshare)
        .args([
            "sh",
            "-ec",
            BLOCKED,
            env!("CARGO_BIN_EXE_wiremesh"),
            "--json",
        ])
        .current_dir(home.path())
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let report = parse(&String::from_utf8(output.stdout).expect("UTF-8"));
    for (name, zero) in MEASURES {
        let row = &report[name];
        assert!(is_possible(&row["tunnel"], zero), "{name}: {row}");
        assert!(row["plain"].is_null(), "{name}: {row}");
        let reason = row["plain_missing"].as_str().expect("a reason");
        assert!(
            name == WITHOUT_PLAIN || reason.contains("firewall"),
            "{name}: {row}"
        );
    }
}

#[test]
fn wrong_tickets_are_refused_with_a_remedy() {
    let home = Home::new();
    let shown = home.bad(&["bench", "nonsense"], 2);
    assert!(shown.contains("copy the whole ticket"), "{shown}");
    home.bad(&["bench"], 2);

    home.write("note", "hello");
    let (_sender, ticket) = home.send(&["note"]);
    let shown = home.bad(&["bench", &ticket], 2);
    assert!(
        shown.contains("fix: use the ticket that `wiremesh bench --listen`"),
        "{shown}"
    );

    let (_listener, ticket) = listen(&home, &[]);
    let mut forged: Ticket = ticket.parse().expect("a ticket");
    forged.secret = Some(TicketSecret::from_bytes([7; 16]));
    let shown = home.bad(&["bench", &forged.to_string()], 2);
    assert!(
        shown.contains("refused the ticket") && shown.contains("fix: "),
        "{shown}"
    );
    forged.secret = None;
    let shown = home.bad(&["bench", &forged.to_string()], 2);
    assert!(shown.contains("fix: "), "{shown}");
    home.good(&["bench", &ticket, "--duration", "10ms", "--no-plain"]);
}

/// Says something on the first stream; all that comes back until the other side ends it.
async fn say(node: &Node, ticket: &Ticket, message: &[u8]) -> Vec<u8> {
    let connection = node.connect(ticket, "wiremesh-bench/1").await;
    let connection = connection.expect("connects");
    let (mut send, mut receive) = connection.open_bi().await.expect("opens");
    send.write_all(message).await.expect("written");
    receive.read_to_end(1_000).await.expect("ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_request_is_refused_and_a_second_client_waits_its_turn() {
    const MALFORMED: [u8; 3] = [133, 1, 3];
    let home = Home::new();
    let (_listener, text) = listen(&home, &["--keep"]);
    let ticket: Ticket = text.parse().expect("a ticket");
    let secret = ticket.secret.clone().expect("a secret");
    let hello = [&[1, 16][..], secret.as_bytes()].concat();
    let node = Node::builder().bind().await.expect("binds");

    for wrong in [&[0, 0][..], &[1, 0], &[2, 0], &[200, 3, 1, 2, 3]] {
        assert_eq!(say(&node, &ticket, wrong).await, MALFORMED, "{wrong:?}");
    }
    // A datagram of 60,000 bytes, for a minute, at 1 Mbit/s; and twice the same good request.
    let too_long = [
        &[4, 19, 1, 0, 0, 0, 1, 0xea, 0x60, 0, 0, 0xea, 0x60][..],
        &1_000_000u64.to_be_bytes(),
    ];
    for wrong in [too_long.concat(), vec![2, 0, 2, 0]] {
        let answer = say(&node, &ticket, &[&hello[..], &wrong].concat()).await;
        assert_eq!(answer[..2], [129, 18], "welcome");
        assert!(answer.ends_with(&MALFORMED), "{wrong:?}: {answer:?}");
    }

    let first = node.connect(&ticket, "wiremesh-bench/1").await;
    let first = first.expect("connects");
    let (mut send, mut receive) = first.open_bi().await.expect("opens");
    send.write_all(&hello).await.expect("written");
    receive.read_exact(&mut [0; 20]).await.expect("welcome");
    let busy = tokio::task::block_in_place(|| home.bad(&["bench", &text], 1));
    assert!(
        busy.contains("another host") && busy.contains("fix: "),
        "{busy}"
    );
    first.close(0u32.into(), b"");
    node.close().await;
}
