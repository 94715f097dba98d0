//! What the two sides of `wiremesh bench` say over the first stream, and how further streams begin.
//!
//! Owns the layout and its limits: a value that was decoded is within them. Never does I/O.
//!
//! A message is its kind (1 byte), the length of its body (1 byte) and the body; integers are
//! big-endian. The client asks, the server answers each request once.

use std::time::Duration;

/// The longest that one measurement may take.
pub const DURATION_MAX: Duration = Duration::from_secs(60);

/// The most that may be offered in datagrams, bits per second.
pub const RATE_MAX: u64 = 10_000_000_000;

/// The least.
pub const RATE_MIN: u64 = 1_000;

/// The longest datagram of a measurement at a rate: that of a tunnel with the default MTU.
pub const SIZE_MAX: u16 = 1_372;

/// The shortest.
pub const SIZE_MIN: u16 = 64;

/// Length of the token that everything outside the stream layer begins with.
pub const TOKEN_LEN: usize = 16;

/// What plain traffic has to begin with; drawn anew for each client.
pub type Token = [u8; TOKEN_LEN];

/// A message is not of this protocol, or not within its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Which way a datagram takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Inside the tunnel.
    Tunnel = 1,
    /// Beside it.
    Plain = 2,
}

/// Datagrams at a rate, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bits of UDP payload per second.
    pub bits_per_second: u64,
    /// UDP payload of each, bytes.
    pub size_bytes: u16,
    /// For how long.
    pub duration: Duration,
}

impl Offer {
    /// Checks the limits.
    fn checked(self) -> Result<Self, Malformed> {
        let good = (RATE_MIN..=RATE_MAX).contains(&self.bits_per_second)
            && (SIZE_MIN..=SIZE_MAX).contains(&self.size_bytes)
            && self.duration <= DURATION_MAX;
        good.then_some(self).ok_or(Malformed)
    }

    /// How many datagrams are due after a time.
    pub fn due(&self, after: Duration) -> u64 {
        let bits = self.bits_per_second as f64 * after.min(self.duration).as_secs_f64();
        (bits / (f64::from(self.size_bytes) * 8.0)) as u64 + 1
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Let me in: the secret of the ticket.
    Hello([u8; 16]),
    /// Open plain ports for me.
    OpenPlain,
    /// How many datagrams of this test have arrived?
    Count {
        /// By which way.
        way: Way,
        /// Number of the test.
        test: u32,
    },
    /// Send me datagrams.
    Send {
        /// By which way.
        way: Way,
        /// Number of the test.
        test: u32,
        /// How many, and how fast.
        offer: Offer,
    },
}

/// What the server says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Come in.
    Welcome {
        /// What datagrams and plain connections begin with.
        token: Token,
        /// UDP port inside the tunnel.
        port: u16,
    },
    /// The plain ports; 0 for one that could not be opened.
    Plain {
        /// TCP.
        tcp: u16,
        /// UDP.
        udp: u16,
    },
    /// So many have arrived.
    Counted(u64),
    /// They are sent.
    Sent {
        /// How many.
        sent: u64,
        /// In which time.
        took: Duration,
    },
    /// No.
    Refused(Refusal),
}

/// Why a server says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The secret is not that of the ticket.
    Secret = 1,
    /// Another client is being served.
    Busy = 2,
    /// The request makes no sense to it.
    Malformed = 3,
    /// It cannot, for a reason of its own.
    Unable = 4,
}

/// What a stream is for; on a plain connection the token comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Pieces of [`PIECE_LEN`] bytes come back.
    Echo,
    /// The client sends until it ends the stream; the server says what came.
    Up,
    /// The server sends for so long.
    Down(Duration),
}

/// Bytes that go to and fro over a stream, as many as a ping in a datagram has.
pub const PIECE_LEN: usize = 64;

/// Length of a job.
pub const JOB_LEN: usize = 5;

impl Job {
    /// As bytes.
    pub fn encode(self) -> [u8; JOB_LEN] {
        let (kind, duration) = match self {
            Self::Echo => (1, Duration::ZERO),
            Self::Up => (2, Duration::ZERO),
            Self::Down(duration) => (3, duration),
        };
        let [a, b, c, d] = millis(duration).to_be_bytes();
        [kind, a, b, c, d]
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: [u8; JOB_LEN]) -> Result<Self, Malformed> {
        let [kind, a, b, c, d] = bytes;
        let duration = Duration::from_millis(u32::from_be_bytes([a, b, c, d]).into());
        match kind {
            1 if duration.is_zero() => Ok(Self::Echo),
            2 if duration.is_zero() => Ok(Self::Up),
            3 if duration <= DURATION_MAX => Ok(Self::Down(duration)),
            _ => Err(Malformed),
        }
    }
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(secret) => message(1, &[secret]),
            Self::OpenPlain => message(2, &[]),
            Self::Count { way, test } => message(3, &[&[*way as u8], &test.to_be_bytes()]),
            Self::Send { way, test, offer } => message(
                4,
                &[
                    &[*way as u8],
                    &test.to_be_bytes(),
                    &offer.size_bytes.to_be_bytes(),
                    &millis(offer.duration).to_be_bytes(),
                    &offer.bits_per_second.to_be_bytes(),
                ],
            ),
        }
    }

    /// From kind and body.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Body(body);
        let request = match kind {
            1 => Self::Hello(body.take()?),
            2 => Self::OpenPlain,
            3 => Self::Count {
                way: body.way()?,
                test: u32::from_be_bytes(body.take()?),
            },
            4 => Self::Send {
                way: body.way()?,
                test: u32::from_be_bytes(body.take()?),
                offer: Offer {
                    size_bytes: u16::from_be_bytes(body.take()?),
                    duration: Duration::from_millis(u32::from_be_bytes(body.take()?).into()),
                    bits_per_second: u64::from_be_bytes(body.take()?),
                }
                .checked()?,
            },
            _ => return Err(Malformed),
        };
        body.end(request)
    }
}

impl Answer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome { token, port } => message(129, &[token, &port.to_be_bytes()]),
            Self::Plain { tcp, udp } => message(130, &[&tcp.to_be_bytes(), &udp.to_be_bytes()]),
            Self::Counted(count) => message(131, &[&count.to_be_bytes()]),
            Self::Sent { sent, took } => {
                message(132, &[&sent.to_be_bytes(), &nanos(*took).to_be_bytes()])
            }
            Self::Refused(why) => message(133, &[&[*why as u8]]),
        }
    }

    /// From kind and body.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Body(body);
        let answer = match kind {
            129 => Self::Welcome {
                token: body.take()?,
                port: u16::from_be_bytes(body.take()?),
            },
            130 => Self::Plain {
                tcp: u16::from_be_bytes(body.take()?),
                udp: u16::from_be_bytes(body.take()?),
            },
            131 => Self::Counted(u64::from_be_bytes(body.take()?)),
            132 => Self::Sent {
                sent: u64::from_be_bytes(body.take()?),
                took: Duration::from_nanos(u64::from_be_bytes(body.take()?)),
            },
            133 => Self::Refused(match body.take()? {
                [1] => Refusal::Secret,
                [2] => Refusal::Busy,
                [3] => Refusal::Malformed,
                [4] => Refusal::Unable,
                _ => return Err(Malformed),
            }),
            _ => return Err(Malformed),
        };
        body.end(answer)
    }
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u8::try_from(body.len()).expect("no body is longer than 24 bytes");
    let mut bytes = vec![kind, length];
    bytes.extend(body);
    bytes
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn way(&mut self) -> Result<Way, Malformed> {
        match self.take()? {
            [1] => Ok(Way::Tunnel),
            [2] => Ok(Way::Plain),
            _ => Err(Malformed),
        }
    }

    fn end<T>(self, value: T) -> Result<T, Malformed> {
        self.0.is_empty().then_some(value).ok_or(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFER: Offer = Offer {
        bits_per_second: 10_000_000,
        size_bytes: 1_200,
        duration: Duration::from_millis(300),
    };

    fn send(offer: Offer) -> Request {
        let (way, test) = (Way::Plain, 7);
        Request::Send { way, test, offer }
    }

    #[test]
    fn messages_read_back() {
        let way = Way::Tunnel;
        for request in [
            Request::Hello([9; 16]),
            Request::OpenPlain,
            Request::Count { way, test: 1 << 30 },
            send(OFFER),
        ] {
            let bytes = request.encode();
            assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
            assert_eq!(Request::decode(bytes[0], &bytes[2..]), Ok(request));
        }
        let took = Duration::from_nanos(123_456_789_012);
        for answer in [
            Answer::Welcome {
                token: [3; 16],
                port: 53_000,
            },
            Answer::Plain {
                tcp: 0,
                udp: 65_535,
            },
            Answer::Counted(u64::MAX),
            Answer::Sent { sent: 5, took },
            Answer::Refused(Refusal::Secret),
            Answer::Refused(Refusal::Busy),
            Answer::Refused(Refusal::Malformed),
            Answer::Refused(Refusal::Unable),
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(bytes[0], &bytes[2..]), Ok(answer));
        }
        let longest = Job::Down(DURATION_MAX);
        for job in [Job::Echo, Job::Up, Job::Down(Duration::ZERO), longest] {
            assert_eq!(Job::decode(job.encode()), Ok(job));
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_malformed() {
        let longer = DURATION_MAX + Duration::from_millis(1);
        for offer in [
            Offer {
                bits_per_second: RATE_MIN - 1,
                ..OFFER
            },
            Offer {
                bits_per_second: RATE_MAX + 1,
                ..OFFER
            },
            Offer {
                size_bytes: SIZE_MIN - 1,
                ..OFFER
            },
            Offer {
                size_bytes: SIZE_MAX + 1,
                ..OFFER
            },
            Offer {
                duration: longer,
                ..OFFER
            },
        ] {
            let bytes = send(offer).encode();
            assert_eq!(
                Request::decode(bytes[0], &bytes[2..]),
                Err(Malformed),
                "{offer:?}"
            );
        }
        assert_eq!(Job::decode(Job::Down(longer).encode()), Err(Malformed));
        assert_eq!(Job::decode([1, 0, 0, 0, 1]), Err(Malformed));
        let bytes = Request::OpenPlain.encode();
        assert_eq!(
            Request::decode(bytes[0], &[0]),
            Err(Malformed),
            "a byte too many"
        );
    }

    #[test]
    fn due_datagrams_follow_the_rate_and_end_with_the_time() {
        let offer = Offer {
            duration: Duration::from_secs(1),
            ..OFFER
        };
        assert_eq!(offer.due(Duration::ZERO), 1);
        assert_eq!(offer.due(Duration::from_millis(500)), 521);
        assert_eq!(offer.due(Duration::from_secs(1)), 1_042);
        assert_eq!(offer.due(Duration::from_secs(9)), 1_042);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..255)) {
            if let Ok(request) = Request::decode(kind, &body) {
                prop_assert_eq!(&request.encode()[2..], &body[..]);
            }
            if let Ok(answer) = Answer::decode(kind, &body) {
                prop_assert_eq!(&answer.encode()[2..], &body[..]);
            }
        }
    }
}
