//! Programs reach each other through `proxy` and `forward`: real processes on loopback, and clients
//! that know nothing of the tunnel.
#![allow(missing_docs)]

#[path = "support/home.rs"]
mod home;
#[path = "support/socks_socket.rs"]
mod socks_socket;

use home::{Home, Running, field, free_port};
use socks_socket::SocksSocket;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use wiremesh::{default_transport, quinn};
use wiremesh_quic::{Provider, at_least_assumed};

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and a client that know each other.
struct Network {
    server: Home,
    client: Home,
    server_id: String,
}

impl Network {
    fn new() -> Self {
        let (server, client) = (Home::new(), Home::new());
        let id = |home: &Home| field(&home.good(&["key", "new", "--key", "key"]), "node id");
        let (server_id, client_id) = (id(&server), id(&client));
        let port = free_port();
        let config = |listen: u16, peer: &str, id: &str, more: &str| {
            format!(
                "[node]\nkey = \"key\"\nlisten = [\"127.0.0.1:{listen}\"]\nlog = \"error\"\n\
                 state-dir = \"state\"\ncontrol-socket = \"control.sock\"\n\
                 [[peer]]\nname = \"{peer}\"\nid = \"{id}\"\n{more}"
            )
        };
        server.write("node.toml", &config(port, "client", &client_id, ""));
        let endpoint = format!("endpoint = \"127.0.0.1:{port}\"\n");
        client.write("node.toml", &config(0, "server", &server_id, &endpoint));
        Self {
            server,
            client,
            server_id,
        }
    }

    /// The server's address inside the tunnel.
    fn overlay(&self) -> std::net::IpAddr {
        let id = self.server_id.parse().expect("a node id");
        wiremesh::address::overlay_address(&id).into()
    }

    /// Starts a command on one side; gives it with what it said before it was ready.
    fn start(home: &Home, arguments: &[&str]) -> (Running, String) {
        let mut running = home.start(&[arguments, &["--config", "node.toml"]].concat());
        let mut lines = running.stderr().lines().map(|line| line.expect("a line"));
        let mut said = String::new();
        for line in lines.by_ref() {
            if line.starts_with("ready") {
                break;
            }
            said += &(line + "\n");
        }
        thread::spawn(move || lines.for_each(drop));
        (running, said)
    }

    /// Ports inside the tunnel of the server.
    fn serve(&self, arguments: &[&str]) -> Running {
        Self::start(&self.server, &[&["forward"], arguments].concat()).0
    }

    /// A proxy of the client, and its address.
    fn proxy(&self) -> (Running, SocketAddr) {
        let (running, said) = Self::start(&self.client, &["proxy", "--socks5", "127.0.0.1:0"]);
        let line = said.lines().find(|line| line.starts_with("socks5"));
        let address = line
            .and_then(|line| line.rsplit(' ').next())
            .expect("a word");
        (running, address.parse().expect("an address"))
    }
}

/// A local server that handles each connection by `f`; gives its port.
fn serve_tcp(f: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("an address").port();
    let f = Arc::new(f);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let f = Arc::clone(&f);
            thread::spawn(move || f(stream));
        }
    });
    port
}

/// Reads until the client closes its side, then answers with the same bytes in reverse.
fn reverse(mut stream: TcpStream) {
    let mut data = Vec::new();
    if stream.read_to_end(&mut data).is_ok() {
        data.reverse();
        // The client may be gone.
        let _ = stream.write_all(&data);
    }
}

/// A local UDP server that sends datagrams back; gives its port.
fn serve_udp() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = socket.local_addr().expect("an address").port();
    thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    port
}

fn dial(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect()
}

/// Sends, closes our side, and checks that all of it comes back in reverse.
fn check_reversed(mut stream: TcpStream, count: usize) {
    let mut data = bytes(count);
    let mut writer = stream.try_clone().expect("a second handle");
    let sent = data.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).expect("it is read");
        writer.shutdown(std::net::Shutdown::Write).expect("open");
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("an end in order");
    writing.join().expect("no panic");
    data.reverse();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
}

/// Sends a request to the proxy; gives the connection with the reply's code and address.
fn ask(proxy: SocketAddr, command: u8, host: &[u8], port: u16) -> (TcpStream, u8, SocketAddr) {
    let mut stream = dial(proxy);
    stream.write_all(&[5, 1, 0]).expect("it is read");
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).expect("a method");
    assert_eq!(chosen, [5, 0]);
    let request = [&[5, command, 0], host, &port.to_be_bytes()].concat();
    stream.write_all(&request).expect("it is read");
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("a reply");
    let address = match head[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).expect("an address");
            std::net::IpAddr::from(ip)
        }
        4 => {
            let mut ip = [0; 16];
            stream.read_exact(&mut ip).expect("an address");
            std::net::IpAddr::from(ip)
        }
        other => panic!("address type {other}"),
    };
    let mut port = [0; 2];
    stream.read_exact(&mut port).expect("a port");
    (
        stream,
        head[1],
        SocketAddr::new(address, u16::from_be_bytes(port)),
    )
}

fn name(name: &str) -> Vec<u8> {
    [&[3, name.len() as u8], name.as_bytes()].concat()
}

#[test]
fn programs_connect_through_the_proxy_and_learn_why_they_cannot() {
    let network = Network::new();
    let port = serve_tcp(reverse);
    let _serving = network.serve(&["--listen", &format!("80:127.0.0.1:{port}")]);
    let (mut proxy, address) = network.proxy();
    let std::net::IpAddr::V6(overlay) = network.overlay() else {
        panic!("overlay addresses are IPv6");
    };
    let id: wiremesh::NodeId = network.server_id.parse().expect("a node id");
    let base32 = id.to_base32();
    let long = format!("{base32}.WireMesh.internal");
    let by_address = [&[4], &overlay.octets()[..]].concat();
    for host in [
        name("server"),
        name(&long),
        name("server.wiremesh.internal."),
        by_address,
    ] {
        let (stream, code, bound) = ask(address, 1, &host, 80);
        assert_eq!(code, 0, "{host:?}");
        assert!(
            bound.is_ipv6() && bound.port() != 0,
            "our end inside the tunnel: {bound}"
        );
        check_reversed(stream, 1_000);
    }
    let (stream, ..) = ask(address, 1, &name("server"), 80);
    check_reversed(stream, 1_000_000);
    for (host, port, command, expected) in [
        (name("server"), 81, 1, 5),
        (name("example.com"), 80, 1, 4),
        (name("localhost"), 80, 1, 4),
        (vec![1, 127, 0, 0, 1], 80, 1, 3),
        (vec![1, 10, 0, 0, 1], 80, 1, 3),
        (name("server"), 80, 2, 7),
        (vec![1, 10, 0, 0, 1], 80, 9, 7),
    ] {
        let (_, code, _) = ask(address, command, &host, port);
        assert_eq!(code, expected, "{host:?} port {port} command {command}");
    }
    let mut stream = dial(address);
    stream.write_all(&[5, 1, 2]).expect("it is read");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end");
    assert_eq!(answer, [5, 0xff], "with a password only: no");
    proxy.signal("INT");
    assert_eq!(proxy.code(), Some(130));
}

#[test]
fn udp_goes_through_the_proxy_while_its_connection_is_open() {
    let network = Network::new();
    let port = serve_udp();
    let _serving = network.serve(&["--listen-udp", &format!("53:127.0.0.1:{port}")]);
    let (_proxy, address) = network.proxy();
    let (control, code, relay) = ask(address, 3, &[1, 0, 0, 0, 0], 0);
    assert_eq!((code, relay.ip()), (0, address.ip()));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    let mut buffer = [0; 2_000];
    // The first datagrams may be lost: a handshake is under way.
    let header = [&[0, 0, 0], &name("server")[..], &[0, 53]].concat();
    let mut exchange = |payload: &[u8]| {
        for _ in 0..20 {
            socket
                .send_to(&[&header, payload].concat(), relay)
                .expect("sent");
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                assert_eq!(from, relay);
                return Some(buffer[..len].to_vec());
            }
        }
        None
    };
    let payload = bytes(300);
    let answer = exchange(&payload).expect("an answer");
    assert_eq!(
        &answer[..4],
        [0, 0, 0, 4],
        "it comes from the server's IPv6 address"
    );
    assert_eq!(
        (&answer[20..22], &answer[22..]),
        (&[0, 53][..], &payload[..])
    );
    // A second program must not take part.
    let other = UdpSocket::bind("127.0.0.1:0").expect("binds");
    other
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    other
        .send_to(&[&header[..], b"x"].concat(), relay)
        .expect("sent");
    assert!(other.recv_from(&mut [0; 100]).is_err());
    drop(control);
    let begun = std::time::Instant::now();
    while socket.send_to(&[&header[..], b"y"].concat(), relay).is_ok() {
        // The system tells a connected socket only; the relay is gone when nothing comes back.
        if socket.recv_from(&mut [0; 100]).is_err() {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the relay ends with the connection"
        );
    }
}

/// QUIC without encryption of its own, which is the same to a proxy.
fn quic() -> Provider {
    let transport = at_least_assumed(default_transport()).expect("the default");
    Provider::new([7; 32], transport)
}

/// A QUIC server on loopback that sends back what comes on a stream.
fn serve_quic() -> quinn::Endpoint {
    let config = quic().server_config(&["echo"]).expect("a name");
    let endpoint = quinn::Endpoint::new(
        quic().endpoint_config(),
        Some(config),
        UdpSocket::bind("127.0.0.1:0").expect("binds"),
        Arc::new(quinn::TokioRuntime),
    );
    let endpoint = endpoint.expect("a runtime");
    let server = endpoint.clone();
    tokio::spawn(async move {
        let connection = server.accept().await.expect("a client").await;
        let connection = connection.expect("a connection");
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let data = recv.read_to_end(10_000_000).await.expect("all of it");
            send.write_all(&data).await.expect("the client reads");
            send.finish().expect("once");
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quic_client_works_through_the_proxy() {
    let server = serve_quic();
    let port = server.local_addr().expect("an address").port();
    let network = Network::new();
    let _serving = network.serve(&["--listen-udp", &format!("443:127.0.0.1:{port}")]);
    let (_proxy, address) = network.proxy();
    let (_control, code, relay) = ask(address, 3, &[1, 0, 0, 0, 0], 0);
    assert_eq!(code, 0);
    let client = quinn::Endpoint::new_with_abstract_socket(
        quic().endpoint_config(),
        None,
        SocksSocket::new(relay).await,
        Arc::new(quinn::TokioRuntime),
    );
    let to = SocketAddr::new(network.overlay(), 443);
    let config = quic().client_config(&["echo"]).expect("a name");
    let client = client.expect("a runtime");
    let exchanged = async {
        let connecting = client.connect_with(config, to, "server");
        let connection = connecting.expect("an address").await.expect("connects");
        let (mut send, mut recv) = connection.open_bi().await.expect("open");
        let data = bytes(250_000);
        send.write_all(&data).await.expect("the server reads");
        send.finish().expect("once");
        let back = recv.read_to_end(data.len()).await.expect("an answer");
        assert!(back == data, "{} bytes came back", back.len());
    };
    let in_time = tokio::time::timeout(PATIENCE, exchanged).await;
    in_time.expect("QUIC goes through");
}

#[test]
fn ports_are_forwarded_both_ways_with_every_kind_of_end() {
    let network = Network::new();
    let (plain, udp) = (serve_tcp(reverse), serve_udp());
    // A server that cuts off after its first answer has arrived.
    let cut = serve_tcp(|mut stream| {
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).expect("a question");
        stream.write_all(b"half").expect("an answer");
        stream.read_exact(&mut buffer).expect("another");
        drop(with_reset(stream));
    });
    let nobody = free_port();
    let _serving = network.serve(&[
        "--listen",
        &format!("80:127.0.0.1:{plain}"),
        "--listen",
        &format!("81:localhost:{cut}"),
        "--listen",
        &format!("82:127.0.0.1:{nobody}"),
        "--listen-udp",
        &format!("53:127.0.0.1:{udp}"),
    ]);
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let [a, b, c, d] = ports;
    let arguments = [
        "forward",
        &format!("{a}:server:80"),
        &format!("{b}:{}:81", network.server_id),
        &format!("{c}:server:82"),
        "--udp",
        &format!("{d}:server:53"),
    ];
    let (mut forward, said) = Network::start(&network.client, &arguments);
    assert!(said.contains(&format!("127.0.0.1:{a} -> server")), "{said}");
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    check_reversed(dial(local(a)), 500_000);
    let mut stream = dial(local(b));
    stream.write_all(b"what").expect("it is read");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("the answer");
    assert_eq!(&answer, b"half");
    stream.write_all(b"more").expect("it is read");
    let error = stream
        .read(&mut answer)
        .expect_err("the reset came through");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut stream = dial(local(c));
    let error = stream.read(&mut answer).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(local(d)).expect("an address");
    for payload in [&b"one"[..], b"", b"three"] {
        socket.send(payload).expect("sent");
        let len = socket.recv(&mut [0; 100]).expect("an answer");
        assert_eq!(len, payload.len());
    }
    forward.signal("TERM");
    assert_eq!(forward.code(), Some(0));
}

#[test]
fn one_peer_does_not_use_up_what_all_peers_share() {
    const SHARE: usize = 64;
    let network = Network::new();
    // Greets, and stays for as long as the client.
    let greets = serve_tcp(|mut stream| {
        let _ = stream.write_all(b"x");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let _serving = network.serve(&[
        "--listen",
        &format!("80:127.0.0.1:{greets}"),
        "--listen-udp",
        &format!("53:127.0.0.1:{}", serve_udp()),
    ]);
    let [tcp, udp] = [free_port(), free_port()];
    let arguments = [
        "forward",
        &format!("{tcp}:server:80"),
        "--udp",
        &format!("{udp}:server:53"),
    ];
    let _forward = Network::start(&network.client, &arguments);
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let greeting = || {
        let mut stream = dial(local(tcp));
        let read = stream.read(&mut [0]);
        (stream, read.unwrap_or(0))
    };
    let mut held: Vec<_> = (0..SHARE).map(|_| greeting()).collect();
    assert!(held.iter().all(|(_, read)| *read == 1));
    assert_eq!(greeting().1, 0, "one too many");
    held.pop();
    // The server learns of the end a moment later.
    let again = (0..50).any(|_| {
        thread::sleep(Duration::from_millis(20));
        greeting().1 == 1
    });
    assert!(again, "a share that is given back");

    // All are kept: a port that comes again would be no further flow.
    let mut sockets = Vec::new();
    let mut answered = |patience| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_read_timeout(Some(patience)).expect("a timeout");
        socket.connect(local(udp)).expect("an address");
        socket.send(b"x").expect("sent");
        let is_answered = socket.recv(&mut [0; 10]).is_ok();
        sockets.push(socket);
        is_answered
    };
    assert!((0..SHARE).all(|_| answered(PATIENCE)));
    assert!(!answered(Duration::from_secs(1)), "one too many");
}

/// The same connection, which ends with a reset when it is dropped.
fn with_reset(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(true).expect("set");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let runtime = runtime.expect("a runtime");
    let _guard = runtime.enter();
    let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
    stream.set_zero_linger().expect("set");
    stream.into_std().expect("a socket")
}

/// Arguments, exit code, and what is said about the fault and its remedy.
type Refusal<'a> = (&'a [&'a str], i32, &'a str, &'a str);

fn check_refused(home: &Home, refusals: &[Refusal<'_>]) {
    for (arguments, code, what, fix) in refusals {
        let arguments = [arguments, &["--config", "node.toml"][..]].concat();
        let shown = home.bad(&arguments, *code);
        let right = shown.contains(what) && shown.contains(fix);
        assert!(right, "{arguments:?}: {shown}");
    }
}

#[test]
fn a_wrong_forward_is_refused_with_place_and_remedy_and_nothing_is_started() {
    let network = Network::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let busy = format!("{}:server:80", taken.local_addr().expect("one").port());
    let free = free_port();
    let unknown = format!("{free}:sever:80");
    let nowhere = format!("{free}:10.1.2.3:80");
    let twice = ["forward", "--listen", "80:a:1", "--listen", "80:b:2"];
    let form = "PORT:PEER:PORT";
    let refusals: [Refusal<'_>; 9] = [
        (&["forward"], 2, "nothing to forward", "8080:laptop:80"),
        (&["forward", "80:server"], 2, "2 parts", form),
        (&["forward", "0:server:80"], 2, "from 1 to 65535", form),
        (&["forward", &unknown], 2, "no peer is", "mean `server`"),
        (&["forward", &nowhere], 2, "in no peer's", "name a peer"),
        (&["forward", &busy], 1, "cannot listen", "another one"),
        (
            &["forward", "0.0.0.0:80:server:80"],
            2,
            "no password",
            "--allow-remote",
        ),
        (
            &["forward", "--listen-udp", "2708:127.0.0.1:1"],
            2,
            "belongs to",
            "",
        ),
        (&twice, 2, "port 80 is in use", ""),
    ];
    check_refused(&network.client, &refusals);
}

#[test]
fn a_wrong_proxy_is_refused_with_place_and_remedy() {
    let network = Network::new();
    let refusals: [Refusal<'_>; 4] = [
        (&["proxy"], 2, "--socks5", ""),
        (&["proxy", "--socks5", "1080"], 2, "--socks5", ""),
        (
            &["proxy", "--socks5", "0.0.0.0:0"],
            2,
            "no password",
            "127.0.0.1:0",
        ),
        (
            &["proxy", "--socks5", "[::]:1080"],
            2,
            "no password",
            "--allow-remote",
        ),
    ];
    check_refused(&network.client, &refusals);
    let proxy = ["proxy", "--socks5", "127.0.0.1:0", "--config"];
    let shown = network
        .client
        .bad(&[&proxy[..], &["none.toml"]].concat(), 2);
    let right = shown.contains("none.toml") && shown.contains("wiremesh config >");
    assert!(right, "{shown}");
    let _running = network.client.up("node.toml");
    let shown = network
        .client
        .bad(&[&proxy[..], &["node.toml"]].concat(), 1);
    assert!(shown.contains("a node runs already"), "{shown}");
}
