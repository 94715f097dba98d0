//! Transport settings: our defaults, and the check that a node grants what its peers assume.
//!
//! Owns the defaults with their reasons, the floor and the ceiling of each checked setting. Never
//! changes a setting that a caller made.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn_proto::crypto::{self, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionId, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, TransportConfig, VarInt,
};

use crate::assumed;
use crate::keys::ResetKey;
use crate::parameters::{self, id};

/// Default of `max_idle_timeout`. Longer than a WireGuard rekey that has to be tried again
/// (REKEY_TIMEOUT 5 s, KEEPALIVE_TIMEOUT 10 s), so a short outage keeps connections.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Default of `initial_mtu`: QUIC's minimum, which an inner MTU of 1,280 carries.
pub const INITIAL_MTU_BYTES: u16 = 1_200;
/// Default upper bound of MTU discovery and of the payload that we accept: an inner MTU of 1,420,
/// all of which is a packet's own that travels without IPv6 and UDP headers.
pub const MAX_UDP_PAYLOAD_BYTES: u16 = 1_420;
/// Default of `max_concurrent_bidi_streams`: requests at once, chosen for their memory.
///
/// Quinn keeps two hash-map entries (17 and 25 bytes) for each bidirectional and one (25 bytes)
/// for each unidirectional stream that the peer *may* open, from the start of a connection, in maps
/// of 2^n buckets that are full at 7/8 and that double once half as full when streams come and go.
/// 100 and 100 fit 128 and 256 buckets at first, then 256 and 512; 113 and 113 double each. It also
/// keeps the receive state of a finished stream (360 bytes when the data came in order) for the
/// next: at last one for each permitted stream, even if they are used one at a time.
pub const MAX_BIDI_STREAMS: u32 = 100;
/// Default of `max_concurrent_uni_streams`; see [`MAX_BIDI_STREAMS`].
pub const MAX_UNI_STREAMS: u32 = 100;
/// Default of `stream_receive_window`: 105 Mbit/s for one stream at a round trip of 100 ms.
pub const STREAM_RECEIVE_WINDOW_BYTES: u32 = 1_280 * 1_024;
/// Default of `receive_window`: the memory that an application which does not read can cost. It is
/// 12 stream windows, so that several unread bulk streams leave credit for an urgent one.
pub const RECEIVE_WINDOW_BYTES: u32 = 16 * 1_024 * 1_024;
/// Default of `send_window`, 12 stream windows: more full bulk streams than that fill it, and an
/// urgent write waits for them.
pub const SEND_WINDOW_BYTES: u64 = 16 * 1_024 * 1_024;

/// Most handshake bytes out of order; one message never needs more.
const CRYPTO_BUFFER_BYTES: usize = 8 * 1_024;
/// Datagrams that wait for the application, and for the path.
const DATAGRAM_BUFFER_BYTES: usize = 256 * 1_024;
/// Quinn allocates for each permitted stream when a connection starts.
const MAX_STREAMS: u64 = 65_536;
/// One day; a connection to a vanished peer must end.
const MAX_IDLE_TIMEOUT_MS: u64 = 86_400_000;

/// Makes the default settings, to be used as they are or changed and checked.
///
/// A connection takes about 18 KiB of heap in quinn's state machine while it is idle: 6 KiB are its
/// own type, 8 KiB the maps of permitted streams. After some hundred requests it is 54 KiB, and
/// 89 KiB after as many unidirectional streams as well; see [`MAX_BIDI_STREAMS`] for the reason.
/// Unread data comes on top, up to [`RECEIVE_WINDOW_BYTES`].
/// There is no keep-alive: the tunnel keeps its own path open.
pub fn default_transport() -> TransportConfig {
    let mut mtu_discovery = MtuDiscoveryConfig::default();
    mtu_discovery.upper_bound(MAX_UDP_PAYLOAD_BYTES);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("90 s fit a variable-length integer");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(MAX_BIDI_STREAMS.into())
        .max_concurrent_uni_streams(MAX_UNI_STREAMS.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(None)
        .stream_receive_window(STREAM_RECEIVE_WINDOW_BYTES.into())
        .receive_window(RECEIVE_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .initial_mtu(INITIAL_MTU_BYTES)
        .mtu_discovery_config(Some(mtu_discovery))
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    config
}

/// Transport settings that grant at least what peers assume; made by [`at_least_assumed`].
#[derive(Clone, Debug)]
pub struct CheckedTransport(Arc<TransportConfig>);

impl CheckedTransport {
    /// Lets connections begin with the `receive_window` that peers assume. Gives the one that was
    /// set, for [`quinn_proto::Connection::set_receive_window`] to grant later, or `None` if the
    /// settings are in use already and stay as they are.
    pub fn hold_back_receive_window(&mut self) -> Option<u64> {
        let window = receive_window(&self.0);
        let config = Arc::get_mut(&mut self.0)?;
        config.receive_window(assumed_receive_window());
        Some(window)
    }

    /// The settings, in the form that quinn shares between connections.
    pub fn config(&self) -> Arc<TransportConfig> {
        Arc::clone(&self.0)
    }
}

impl Default for CheckedTransport {
    fn default() -> Self {
        at_least_assumed(default_transport()).expect("the defaults exceed the assumed parameters")
    }
}

/// A transport setting outside its range; the caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingOutOfRange {
    /// Name of the setter of [`TransportConfig`].
    pub setting: &'static str,
    /// The value found, in the setter's unit (milliseconds for a time); `None` when disabled.
    pub found: Option<u64>,
    /// Smallest allowed value.
    pub least: u64,
    /// Largest allowed value.
    pub most: u64,
}

impl fmt::Display for SettingOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            found,
            least,
            most,
        } = self;
        match found {
            Some(found) => write!(f, "transport setting `{setting}` is {found}")?,
            None => write!(f, "transport setting `{setting}` is disabled")?,
        }
        match *most == VarInt::MAX.into_inner() {
            true => write!(f, ", must be at least {least}"),
            false => write!(f, ", must be between {least} and {most}"),
        }
    }
}

impl std::error::Error for SettingOutOfRange {}

/// A checked setting: its name, the parameter that shows it, its range, its value when absent.
type Rule = (&'static str, u64, u64, u64, Option<u64>);

const UNBOUNDED: u64 = VarInt::MAX.into_inner();

const RULES: [Rule; 6] = [
    (
        "max_idle_timeout",
        id::MAX_IDLE_TIMEOUT,
        assumed::MAX_IDLE_TIMEOUT_MS,
        MAX_IDLE_TIMEOUT_MS,
        None,
    ),
    (
        "receive_window",
        id::INITIAL_MAX_DATA,
        assumed::INITIAL_MAX_DATA_BYTES,
        UNBOUNDED,
        Some(0),
    ),
    (
        "stream_receive_window",
        id::INITIAL_MAX_STREAM_DATA_UNI,
        assumed::INITIAL_MAX_STREAM_DATA_BYTES,
        UNBOUNDED,
        Some(0),
    ),
    (
        "max_concurrent_bidi_streams",
        id::INITIAL_MAX_STREAMS_BIDI,
        assumed::INITIAL_MAX_STREAMS_BIDI,
        MAX_STREAMS,
        Some(0),
    ),
    (
        "max_concurrent_uni_streams",
        id::INITIAL_MAX_STREAMS_UNI,
        assumed::INITIAL_MAX_STREAMS_UNI,
        MAX_STREAMS,
        Some(0),
    ),
    (
        "datagram_receive_buffer_size",
        id::MAX_DATAGRAM_FRAME_SIZE,
        assumed::MAX_DATAGRAM_FRAME_SIZE_BYTES,
        UNBOUNDED,
        None,
    ),
];

/// Checks that settings grant at least the parameters that peers assume for 0-RTT.
///
/// Costs about a microsecond: quinn's settings cannot be read back, so it has an endpoint in memory
/// start a connection with them and reads the parameters that it would send.
///
/// # Errors
///
/// The first setting that is below the floor of [`assumed`], or above the ceiling: 65,536
/// streams of a kind, an idle timeout of one day (none counts as above).
pub fn at_least_assumed(config: TransportConfig) -> Result<CheckedTransport, SettingOutOfRange> {
    let config = Arc::new(config);
    let written = Probe::parameters_of(&config);
    let list = parameters::walk(&written).expect("quinn writes well-formed parameters");
    for (setting, id, least, most, absent) in RULES {
        let found = parameters::integer(&list, id).or(absent);
        if found.is_none_or(|value| value < least || value > most) {
            return Err(SettingOutOfRange {
                setting,
                found,
                least,
                most,
            });
        }
    }
    Ok(CheckedTransport(config))
}

fn receive_window(config: &Arc<TransportConfig>) -> u64 {
    let written = Probe::parameters_of(config);
    let list = parameters::walk(&written).expect("quinn writes well-formed parameters");
    parameters::integer(&list, id::INITIAL_MAX_DATA).unwrap_or(0)
}

fn assumed_receive_window() -> VarInt {
    VarInt::from_u64(assumed::INITIAL_MAX_DATA_BYTES).expect("the constant is small")
}

/// A crypto configuration that records the parameters it is given and starts nothing.
#[derive(Default)]
struct Probe(Mutex<Vec<u8>>);

impl Probe {
    fn parameters_of(config: &Arc<TransportConfig>) -> Vec<u8> {
        let probe = Arc::new(Self::default());
        let mut client = ClientConfig::new(Arc::clone(&probe) as _);
        client
            .transport_config(Arc::clone(config))
            .initial_dst_cid_provider(Arc::new(|| ConnectionId::new(&[0; 8])));
        let mut endpoint = EndpointConfig::new(Arc::new(ResetKey::new([0; 32])));
        // The endpoint never sends; a fixed seed keeps it from asking the system for one.
        endpoint.rng_seed(Some([0; 32]));
        let mut endpoint = Endpoint::new(Arc::new(endpoint), None, false, None);
        let remote = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
        let now = std::time::Instant::now();
        let started = endpoint.connect(now, client, remote, "probe");
        assert!(started.is_err(), "the probe starts no session");
        let mut written = probe.0.lock().expect("no holder of the lock panics");
        std::mem::take(&mut *written)
    }
}

impl crypto::ClientConfig for Probe {
    fn start_session(
        self: Arc<Self>,
        _: u32,
        _: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        parameters.write(&mut *self.0.lock().expect("no holder of the lock panics"));
        Err(ConnectError::EndpointStopping)
    }
}
