//! Two network namespaces, a device in each, and a loop that carries the packets between them: real
//! TCP and UDP of the kernel on both sides.
//!
//! Needs root, to make the namespaces and the devices in them.
#![cfg(target_os = "linux")]

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_uid};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use wiremesh_device::{Arrival, Departures, Offloads, Tun, TunError};
use wiremesh_udp::{RecvBatch, Transmit, UdpSockets};
use wiremesh_wire::ip::Checksum;

const MTU_BYTES: u16 = 1420;
const BYTES: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace with a device in it.
struct Host {
    namespace: String,
    number: u8,
}

/// What the loop carried.
#[derive(Debug, Default)]
struct Carried {
    reads: usize,
    packets: usize,
    dropped: usize,
}

impl Host {
    /// None, and why, when the test does not run as root.
    fn pair() -> Option<[Self; 2]> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes network namespaces");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some([1, 2].map(|number| {
            let namespace = format!("wmdev{}x{count}n{number}", std::process::id());
            run(&["ip", "netns", "add", &namespace]);
            Self { namespace, number }
        }))
    }

    /// Runs in a thread of its own, which is in the namespace.
    fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = format!("/run/netns/{}", self.namespace);
                let file = File::open(path).expect("the namespace");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), kind).expect("root");
                task()
            });
            thread.join().expect("the assertions in it")
        })
    }

    fn device(&self, runtime: &Runtime) -> Tun {
        let tun = self.device_by(runtime, || {
            Tun::create(Some("wm0")).expect("root and /dev/net/tun")
        });
        let shown = self.ip(&["link", "show", "wm0"]);
        assert!(shown.contains("qlen 1000"), "{shown}");
        tun
    }

    fn device_by(&self, runtime: &Runtime, make: impl FnOnce() -> Tun + Send) -> Tun {
        let tun = self.inside(|| {
            let _guard = runtime.enter();
            let tun = make();
            tun.set_mtu(MTU_BYTES).expect("a good MTU");
            tun.up().expect("up");
            assert_eq!((tun.name(), tun.mtu().expect("there")), ("wm0", MTU_BYTES));
            tun
        });
        for address in [format!("{}/24", self.ipv4()), format!("{}/64", self.ipv6())] {
            self.ip(&["address", "add", &address, "dev", "wm0", "nodad"]);
        }
        tun
    }

    fn ipv4(&self) -> IpAddr {
        IpAddr::from([10, 99, 0, self.number])
    }

    fn ipv6(&self) -> IpAddr {
        IpAddr::from([0xfd00, 0x99, 0, 0, 0, 0, 0, u16::from(self.number)])
    }

    fn ip(&self, arguments: &[&str]) -> String {
        run(&[&["ip", "-n", &self.namespace], arguments].concat())
    }

    /// What the host got: packets and super-packets alike.
    fn received(&self) -> usize {
        let text = self.ip(&["-s", "link", "show", "dev", "wm0"]);
        let mut lines = text
            .lines()
            .skip_while(|line| !line.contains("RX:"))
            .skip(1);
        let numbers = lines.next().expect("a line of numbers");
        let packets = numbers.split_whitespace().nth(1).expect("packets");
        packets.parse().expect("a number")
    }

    /// Segments and datagrams that the host found wrong.
    fn errors(&self) -> u64 {
        let text = self.inside(|| {
            let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            let [ipv4, ipv6] = ["snmp", "snmp6"].map(|name| read(name).expect("proc"));
            (ipv4, ipv6)
        });
        let mut sum = 0;
        let lines: Vec<Vec<&str>> = text.0.lines().map(|l| l.split(' ').collect()).collect();
        for pair in lines.chunks(2) {
            let both = pair[0].iter().zip(&pair[1]);
            let errors = both.filter(|(name, _)| ["InCsumErrors", "InErrs"].contains(name));
            sum += errors
                .map(|(_, n)| n.parse::<u64>().expect("a number"))
                .sum::<u64>();
        }
        let ipv6 = text.1.lines().filter(|line| line.contains("InCsumErrors"));
        let number = |line: &str| line.split_whitespace().last()?.parse::<u64>().ok();
        sum + ipv6.filter_map(number).sum::<u64>()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        run(&["ip", "netns", "delete", &self.namespace]);
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .expect(command[0]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Carries packets in both directions until it is told to end.
async fn carry(tuns: &[Tun; 2], mut end: oneshot::Receiver<()>) -> [Carried; 2] {
    let mut arrival = Arrival::default();
    let mut departures = [Departures::default(), Departures::default()];
    let mut carried = [Carried::default(), Carried::default()];
    let mut packet = vec![0; 65_535];
    loop {
        tokio::select! {
            _ = &mut end => return carried,
            result = tuns[0].readable() => result.expect("running"),
            result = tuns[1].readable() => result.expect("running"),
        }
        for (from, to) in [(0, 1), (1, 0)] {
            for _ in 0..32 {
                if tuns[from].try_recv(&mut arrival).is_err() {
                    break;
                }
                carried[from].reads += 1;
                for segment in arrival.segments() {
                    let packet = &mut packet[..segment.len()];
                    segment.write(packet);
                    assert!(packet.len() <= usize::from(MTU_BYTES));
                    departures[from].push(packet);
                }
            }
            let flushed = departures[from].flush(&tuns[to]);
            carried[from].packets += flushed.written;
            carried[from].dropped += flushed.dropped;
        }
    }
}

/// Runs a task beside the loop.
fn beside(runtime: &Runtime, tuns: &[Tun; 2], task: impl FnOnce() + Send) -> [Carried; 2] {
    let (done, end) = oneshot::channel();
    thread::scope(|scope| {
        let task = scope.spawn(move || {
            // Ends the loop also when it panics.
            let _done = done;
            task();
        });
        let carried =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, carry(tuns, end)).await });
        task.join().expect("the assertions in it");
        carried.expect("done in time")
    })
}

/// Bytes that do not repeat where a segment or a super-packet would.
fn pattern(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..BYTES).map(step).collect()
}

/// Sends one pattern and wants the other, at the same time.
fn exchange(stream: TcpStream, sends: u32, wants: u32) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&pattern(sends)).expect("connected"));
        let mut got = vec![0; BYTES];
        (&stream).read_exact(&mut got).expect("connected");
        assert!(got == pattern(wants), "the bytes are others");
    });
}

fn tcp_both_ways(hosts: &[Host; 2], address: IpAddr) {
    let listener = hosts[1].inside(|| TcpListener::bind((address, 0)).expect("our address"));
    let to = listener.local_addr().expect("bound");
    let connect = || TcpStream::connect_timeout(&to, PATIENCE);
    let stream = hosts[0].inside(connect).expect("connected");
    let (accepted, _) = listener.accept().expect("it is connected");
    thread::scope(|scope| {
        scope.spawn(|| exchange(accepted, 1, 2));
        exchange(stream, 2, 1);
    });
}

#[test]
fn tcp_passes_in_super_packets_both_ways() {
    let Some(hosts) = Host::pair() else { return };
    let runtime = runtime();
    let tuns = [hosts[0].device(&runtime), hosts[1].device(&runtime)];
    assert!(tuns[0].offloads().tcp, "any kernel since 2.6.27");
    for address in [hosts[1].ipv4(), hosts[1].ipv6()] {
        let before = [0, 1].map(|at| hosts[at].received());
        let carried = beside(&runtime, &tuns, || tcp_both_ways(&hosts, address));
        for (at, carried) in carried.iter().enumerate() {
            let got = hosts[1 - at].received() - before[1 - at];
            eprintln!("to {address}, way {at}: {carried:?}; the host got {got}");
            assert_eq!(carried.dropped, 0);
            assert!(carried.packets > BYTES / usize::from(MTU_BYTES));
            assert!(
                carried.packets > 3 * carried.reads,
                "not cut from super-packets"
            );
            assert!(carried.packets > 3 * got, "not joined to super-packets");
        }
    }
    assert_eq!([hosts[0].errors(), hosts[1].errors()], [0, 0]);
}

#[test]
fn device_without_offloads_takes_packets_one_by_one() {
    let Some(hosts) = Host::pair() else { return };
    let runtime = runtime();
    let plain = || Tun::from_fd(plain_device("wm0")).expect("a TUN device");
    let tuns = [
        hosts[0].device(&runtime),
        hosts[1].device_by(&runtime, plain),
    ];
    assert_eq!(tuns[1].offloads(), Offloads::default());
    let before = [0, 1].map(|at| hosts[at].received());
    let carried = beside(&runtime, &tuns, || tcp_both_ways(&hosts, hosts[1].ipv6()));
    let got = [0, 1].map(|at| hosts[at].received() - before[at]);
    eprintln!("{carried:?}; the hosts got {got:?}");
    assert_eq!(carried[0].packets, got[1]);
    assert!(carried[0].packets > carried[0].reads, "nothing was cut");
    assert_eq!(carried[1].packets, carried[1].reads);
    // How many follow each other is a matter of timing, with data and its answers both ways.
    assert!(carried[1].packets > got[0], "nothing was joined");
    assert_eq!([hosts[0].errors(), hosts[1].errors()], [0, 0]);
}

/// The kernel cuts what we have joined when it sends it on to a device without offloads: it has to
/// find what it needs for that, the sum of the pseudo header too.
#[test]
fn kernel_cuts_what_was_joined_into_what_it_was() {
    let Some([host, _other]) = Host::pair() else {
        return;
    };
    let runtime = runtime();
    let tun = host.device(&runtime);
    let plain = host.inside(|| {
        let _guard = runtime.enter();
        let plain = Tun::from_fd(plain_device("wm1")).expect("a TUN device");
        plain.up().expect("up");
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("root");
        plain
    });
    host.ip(&["route", "add", "fd00:77::/64", "dev", "wm1"]);
    for is_udp in [false, true] {
        let sent: Vec<_> = (0..10).map(|number| packet(is_udp, number)).collect();
        let mut departures = Departures::new(tun.offloads());
        sent.iter().for_each(|packet| departures.push(packet));
        let before = host.received();
        assert_eq!(departures.flush(&tun).written, sent.len());
        if !is_udp || tun.offloads().udp {
            assert_eq!(host.received() - before, 1, "not one super-packet");
        }
        let mut arrival = Arrival::default();
        for mut expected in sent {
            expected[7] -= 1;
            let got = runtime.block_on(async {
                loop {
                    let ready = tokio::time::timeout(PATIENCE, plain.readable()).await;
                    ready.expect("in time").expect("running");
                    // Among it are packets of the host's own.
                    if plain.try_recv(&mut arrival).is_ok() {
                        let segment = arrival.segments().next().expect("a packet");
                        if segment.header()[8..40] == expected[8..40] {
                            break segment.header().to_vec();
                        }
                    }
                }
            });
            assert_eq!(got, expected, "UDP: {is_udp}");
        }
    }
}

/// A packet of a flow from behind one device to behind another.
fn packet(is_udp: bool, number: u32) -> Vec<u8> {
    const PAYLOAD: [u8; 1000] = [7; 1000];
    let mut transport = if is_udp {
        [&[1, 2, 3, 4], &1008u16.to_be_bytes()[..], &[0, 0]].concat()
    } else {
        let sequence = (number * 1000).to_be_bytes();
        let rest = [0, 0, 0, 9, 0x50, 0x10, 1, 1, 0, 0, 0, 0];
        [&[1, 2, 3, 4], &sequence[..], &rest].concat()
    };
    let protocol = if is_udp { 17 } else { 6 };
    let len = (transport.len() + PAYLOAD.len()) as u16;
    let [high, low] = len.to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, protocol, 64];
    for network in ["fd00:99::9", "fd00:77::9"] {
        let address: Ipv6Addr = network.parse().expect("an address");
        packet.extend(address.octets());
    }
    let sum = Checksum::new()
        .add_bytes(&packet[8..])
        .add_u16(protocol.into())
        .add_u16(len);
    let sum = sum.add_bytes(&transport).add_bytes(&PAYLOAD).finish();
    let at = if is_udp { 6 } else { 16 };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(transport);
    packet.extend(PAYLOAD);
    packet
}

/// The descriptor of a device as older programs make it: no header, no super-packets.
fn plain_device(name: &str) -> OwnedFd {
    const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
    let file = File::options().read(true).write(true).open("/dev/net/tun");
    let file = file.expect("root and /dev/net/tun");
    // `struct ifreq`: 16 bytes of name, then the flags: IFF_TUN and IFF_NO_PI.
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which has at most 40 bytes.
    unsafe { ioctl(&file, Updater::<TUNSETIFF, _>::new(&mut request)).expect("root") };
    file.into()
}

#[test]
fn udp_passes_in_super_packets() {
    const DATAGRAM: usize = 1200;
    const COUNT: usize = 41;
    let Some(hosts) = Host::pair() else { return };
    let runtime = runtime();
    let tuns = [hosts[0].device(&runtime), hosts[1].device(&runtime)];
    if !tuns[0].offloads().udp {
        eprintln!("skipped: this kernel has no UDP offload for TUN (it came with Linux 6.2)");
        return;
    }
    // The first flush tells the offloads.
    for address in [hosts[1].ipv4(), hosts[1].ipv6(), hosts[1].ipv4()] {
        let before = hosts[1].received();
        let carried = beside(&runtime, &tuns, || {
            udp_one_way(&hosts, address, DATAGRAM, COUNT)
        });
        let got = hosts[1].received() - before;
        eprintln!("to {address}: {carried:?}; the host got {got}");
        assert_eq!(carried[0].dropped, 0);
        assert!(carried[0].packets >= 2 * COUNT);
        assert!(
            carried[0].packets > 3 * carried[0].reads,
            "not cut from super-packets"
        );
        assert!(got < COUNT + 20, "the second batch was not joined: {got}");
    }
    assert_eq!([hosts[0].errors(), hosts[1].errors()], [0, 0]);
}

/// Two batches of datagrams, each with one system call; the last datagram is shorter.
fn udp_one_way(hosts: &[Host; 2], to: IpAddr, datagram: usize, count: usize) {
    let payload = &pattern(3)[..datagram * count - 5];
    let any = |to: IpAddr| -> SocketAddr {
        let unspecified = if to.is_ipv4() {
            IpAddr::from([0; 4])
        } else {
            IpAddr::from([0u8; 16])
        };
        (unspecified, 0).into()
    };
    let runtime = runtime();
    runtime.block_on(async {
        let bind = |address: SocketAddr| {
            let handle = runtime.handle();
            move || {
                let _guard = handle.enter();
                UdpSockets::bind(&[address]).expect("a port")
            }
        };
        let receiver = hosts[1].inside(bind((to, 0).into()));
        let sender = hosts[0].inside(bind(any(to)));
        let destination = receiver.local_addresses()[0];
        let mut batch = RecvBatch::default();
        for _ in 0..2 {
            let transmit = Transmit {
                destination,
                source: None,
                ecn: 0,
                segment_size: Some(datagram),
                contents: payload,
            };
            let sent = sender.send(&transmit).await.expect("sent");
            assert_eq!(sent.datagrams, count);
            let mut got = Vec::new();
            while got.len() < count {
                let received = tokio::time::timeout(PATIENCE, receiver.recv(&mut batch)).await;
                received.expect("in time").expect("received");
                got.extend(batch.datagrams_mut().map(|one| one.data.to_vec()));
            }
            assert!(
                got.iter()
                    .zip(payload.chunks(datagram))
                    .all(|(a, b)| a == b)
            );
        }
    });
}

#[test]
fn device_that_cannot_be_had_is_refused_with_the_reason() {
    let Some([host, _other]) = Host::pair() else {
        return;
    };
    let runtime = runtime();
    host.inside(|| {
        let _guard = runtime.enter();
        let tun = Tun::create(Some("wm0")).expect("root and /dev/net/tun");
        for taken in ["wm0", "lo"] {
            let refused = Tun::create(Some(taken)).expect_err("it is there");
            assert!(matches!(refused, TunError::NameTaken), "{taken}: {refused}");
        }
        drop(tun);
        assert!(matches!(Tun::create(Some("a/b")), Err(TunError::BadName)));
        let tun = Tun::create(None).expect("a name of the kernel's");
        assert!(tun.name().starts_with("tun"), "{}", tun.name());
        // A device that is down takes nothing.
        let mut departures = Departures::new(Offloads::default());
        departures.push(&[0x45; 40]);
        let flushed = departures.flush(&tun);
        assert_eq!((flushed.written, flushed.dropped), (0, 1));
    });
    // As udev does on ordinary systems.
    let everyone = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions("/dev/net/tun", everyone).expect("the TUN driver");
    host.inside(|| {
        let _guard = runtime.enter();
        // This thread only; its capabilities go with it.
        set_thread_uid(Uid::from_raw(65_534)).expect("root");
        let refused = Tun::create(Some("wm0")).expect_err("an ordinary user");
        assert!(matches!(refused, TunError::NotPermitted), "{refused}");
    });
}
