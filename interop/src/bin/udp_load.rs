//! A real program on the other side of a tunnel: sends UDP and checks every byte that comes back,
//! answers it, or floods a WireGuard port with initiations of a stranger.
//!
//! But for the flood it knows nothing of WireGuard; it owns one UDP socket and always ends.

use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};

const USAGE: &str = "\
udp_load send TO BYTES SIZE WINDOW     sends BYTES in datagrams of SIZE, at most WINDOW unanswered
udp_load echo ADDRESS SECONDS          answers every datagram with its own bytes
udp_load flood TO KEY SECONDS BURST MS  BURST initiations every MS milliseconds, well formed but for
                                       the keys, to the node whose public key is KEY (hex)";

/// Unanswered for this long, a datagram counts as lost and is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// With no answer at all for this long the run has failed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["send", to, bytes, size, window] => send(to, bytes, size, window),
        ["echo", address, seconds] => echo(address, seconds),
        ["flood", to, key, seconds, burst, ms] => flood(to, key, seconds, burst, ms),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn socket_towards(to: SocketAddr) -> Result<UdpSocket, Box<dyn Error>> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// The bytes of a datagram: its number, then bytes that depend on the number and their place.
fn fill(number: u64, datagram: &mut [u8]) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (head, body) = datagram.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    for chunk in body.chunks_mut(8) {
        // xorshift64: any change, cut or mix-up of datagrams shows.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// The datagrams under way: number `first` is the oldest without an answer.
struct Window {
    first: u64,
    /// When each was sent last; `None` once it is answered.
    sent: VecDeque<Option<Instant>>,
    resent: u64,
    duplicates: u64,
}

impl Window {
    fn on_answer(&mut self, number: u64) -> bool {
        let place = number
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        let known = place
            .and_then(|at| self.sent.get_mut(at))
            .is_some_and(|s| s.take().is_some());
        self.duplicates += u64::from(!known);
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        known
    }
}

fn send(to: &str, bytes: &str, size: &str, window: &str) -> Outcome {
    let (size, limit) = (size.parse::<usize>()?.max(8), window.parse::<usize>()?);
    let total = bytes.parse::<u64>()?.div_ceil(size as u64);
    let socket = socket_towards(to.parse()?)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut out, mut want, mut got) = (vec![0; size], vec![0; size], vec![0; size + 1]);
    let mut window = Window {
        first: 0,
        sent: VecDeque::new(),
        resent: 0,
        duplicates: 0,
    };
    let (start, mut last_answer) = (Instant::now(), Instant::now());
    while window.first < total {
        while window.sent.len() < limit && window.first + (window.sent.len() as u64) < total {
            fill(window.first + window.sent.len() as u64, &mut out);
            send_one(&socket, &out)?;
            window.sent.push_back(Some(Instant::now()));
        }
        match socket.recv(&mut got) {
            Ok(len) => {
                let number = got[..8].try_into().map(u64::from_le_bytes)?;
                fill(number, &mut want);
                if got[..len] != want[..] {
                    return Err(format!("datagram {number} came back changed").into());
                }
                if window.on_answer(number) {
                    last_answer = Instant::now();
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        resend_lost(&socket, &mut window, &mut out)?;
        if last_answer.elapsed() > GIVE_UP_AFTER {
            let (first, lost) = (window.first, window.resent);
            return Err(format!("no answer for 30 s at datagram {first} ({lost} resent)").into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let mbit = (total * size as u64 * 8) as f64 / seconds / 1e6;
    println!(
        "{total} datagrams of {size} bytes echoed in {seconds:.1} s ({mbit:.0} Mbit/s each way), \
         {} resent, {} duplicates",
        window.resent, window.duplicates
    );
    Ok(())
}

fn resend_lost(socket: &UdpSocket, window: &mut Window, out: &mut [u8]) -> Outcome {
    for (at, sent) in window.sent.iter_mut().enumerate() {
        match sent {
            Some(when) if when.elapsed() > RESEND_AFTER => *when = Instant::now(),
            // Sent in order: what follows is younger, but for what was resent.
            Some(_) => break,
            None => continue,
        }
        fill(window.first + at as u64, out);
        send_one(socket, out)?;
        window.resent += 1;
    }
    Ok(())
}

/// Errors that a network gives in passing: nobody there yet, a queue that is full, a time-out.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    ) || error.raw_os_error() == Some(105)
}

fn send_one(socket: &UdpSocket, datagram: &[u8]) -> Outcome {
    match socket.send(datagram) {
        Err(error) if !is_passing(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn echo(address: &str, seconds: &str) -> Outcome {
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut datagram = vec![0; 65_536];
    while Instant::now() < end {
        match socket.recv_from(&mut datagram) {
            Ok((len, source)) => drop(socket.send_to(&datagram[..len], source)),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// An initiation that passes mac1 and costs the receiver a key agreement before it fails.
fn strangers_initiation(key: &[u8; 32]) -> Result<[u8; 148], Box<dyn Error>> {
    let mut message = [0x5a; 148];
    message[..8].copy_from_slice(&[1, 0, 0, 0, 0xdd, 0xdd, 0xdd, 0xdd]);
    // An ephemeral public key that is on the curve: the base point.
    message[8..40].fill(0);
    message[8] = 9;
    let mac_key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(key)
        .finalize();
    let mut mac = Blake2sMac::<blake2::digest::consts::U16>::new_from_slice(&mac_key)?;
    mac.update(&message[..116]);
    message[116..132].copy_from_slice(&mac.finalize_fixed());
    message[132..].fill(0);
    Ok(message)
}

fn flood(to: &str, key: &str, seconds: &str, burst: &str, ms: &str) -> Outcome {
    let key: [u8; 32] = data_encoding::HEXLOWER
        .decode(key.as_bytes())
        .ok()
        .and_then(|key| key.try_into().ok())
        .ok_or("KEY is 32 bytes in hexadecimal")?;
    let message = strangers_initiation(&key)?;
    let (burst, pause) = (burst.parse::<u32>()?, Duration::from_millis(ms.parse()?));
    let socket = socket_towards(to.parse()?)?;
    socket.set_nonblocking(true)?;
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let (mut sent, mut answers) = (0_u64, 0_u64);
    let mut answer = [0; 64];
    while Instant::now() < end {
        // Bursts: the queue of handshakes fills, and there is room for an honest one between them.
        for _ in 0..burst {
            sent += u64::from(socket.send(&message).is_ok());
        }
        while socket.recv(&mut answer).is_ok() {
            answers += 1;
        }
        std::thread::sleep(pause);
    }
    println!("{sent} initiations of a stranger sent, {answers} answers");
    Ok(())
}
