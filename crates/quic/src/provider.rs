//! The provider: makes quinn's endpoint, server and client configurations for one node.
//!
//! Owns the node's QUIC secrets and the shared counter of initial connection ids. Never opens
//! anything; quinn does with the configurations.

use std::fmt;
use std::sync::Arc;

use quinn_proto::crypto::{self, Keys, Session, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionId, EndpointConfig, NoneTokenLog, NoneTokenStore,
    ServerConfig, ValidationTokenConfig,
};

use crate::assumed::assumed_parameters;
use crate::client::ClientSession;
use crate::keys::{CidGenerator, InitialCids, ResetKey, Secret, TokenKey, derive, space_keys};
use crate::protocols::{InvalidProtocols, Protocols};
use crate::server::ServerSession;
use crate::transport::{CheckedTransport, MAX_UDP_PAYLOAD_BYTES};

/// The QUIC version of this handshake: "wm" and the version of the message layout.
pub const QUIC_VERSION: u32 = 0x776d_0001;
/// Most connection attempts that wait for the application; later ones are ignored, and tried again.
pub const INCOMING_MAX: usize = 1_024;
/// Most bytes that one waiting attempt may have buffered; a first flight is about 12 kB.
pub const INCOMING_BUFFER_BYTES_MAX: u64 = 64 * 1_024;
/// Most bytes that all waiting attempts may have buffered.
pub const INCOMING_BUFFER_TOTAL_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// Makes the configurations of one endpoint; clones share their state.
///
/// The seed decides every random choice of the endpoint: connection ids, reset tokens, skipped
/// packet numbers. Equal seeds and equal inputs give equal bytes. A seed must be secret, drawn
/// afresh at each start and used for one endpoint: the tag of packets proves nothing, so a repeated
/// connection id lets stray packets of an old connection into a new one.
#[derive(Clone)]
pub struct Provider {
    seed: Arc<Secret>,
    initial_cids: InitialCids,
    transport: CheckedTransport,
    assumed: TransportParameters,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// Makes a provider from 32 secret bytes and checked settings, which all connections share.
    pub fn new(seed: [u8; 32], transport: CheckedTransport) -> Self {
        let seed = Secret::new(seed);
        Self {
            initial_cids: InitialCids::new(derive(&seed, "initial connection id")),
            seed: Arc::new(seed),
            transport,
            assumed: assumed_parameters(),
        }
    }

    /// Makes the endpoint configuration.
    ///
    /// Accepts UDP payloads up to [`MAX_UDP_PAYLOAD_BYTES`]; an inner MTU other than 1,420 sets
    /// another with [`EndpointConfig::max_udp_payload_size`].
    pub fn endpoint_config(&self) -> EndpointConfig {
        let reset_key = ResetKey::new(*derive(&self.seed, "reset key"));
        let cid_key = derive(&self.seed, "connection id");
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        config
            .rng_seed(Some(*derive(&self.seed, "endpoint randomness")))
            .cid_generator(move || Box::new(CidGenerator::new(cid_key.clone())))
            .supported_versions(vec![QUIC_VERSION])
            // Inside the tunnel nobody watches who could come to depend on the bit.
            .grease_quic_bit(false)
            .max_udp_payload_size(MAX_UDP_PAYLOAD_BYTES)
            .expect("1,372 is within QUIC's range");
        config
    }

    /// Makes a server configuration for `protocols`, in order of preference.
    ///
    /// An empty list is allowed and refuses every connection.
    ///
    /// # Errors
    ///
    /// Names beyond the limits, or one given twice.
    pub fn server_config<P: AsRef<[u8]>>(
        &self,
        protocols: &[P],
    ) -> Result<ServerConfig, InvalidProtocols> {
        let crypto = ServerCrypto {
            supported: Arc::new(Protocols::new(protocols)?),
        };
        let token_key = TokenKey(derive(&self.seed, "token key"));
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(NoneTokenLog));
        let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        config
            .transport_config(self.transport.config())
            .validation_token_config(tokens)
            // A connection belongs to the inner address that the tunnel ties to one key.
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BUFFER_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES_MAX);
        Ok(config)
    }

    /// Makes a client configuration that offers `protocols`, in order of preference.
    ///
    /// 0-RTT data belongs to the first. The server name given to `connect` is not sent.
    ///
    /// # Errors
    ///
    /// No name, names beyond the limits, or one given twice.
    pub fn client_config<P: AsRef<[u8]>>(
        &self,
        protocols: &[P],
    ) -> Result<ClientConfig, InvalidProtocols> {
        let offered = Arc::new(Protocols::offer(protocols)?);
        let crypto = ClientCrypto {
            offered,
            assumed: self.assumed,
        };
        let initial_cids = self.initial_cids.clone();
        let mut config = ClientConfig::new(Arc::new(crypto));
        config
            .transport_config(self.transport.config())
            .initial_dst_cid_provider(Arc::new(move || initial_cids.next()))
            .token_store(Arc::new(NoneTokenStore))
            .version(QUIC_VERSION);
        Ok(config)
    }
}

struct ClientCrypto {
    offered: Arc<Protocols>,
    assumed: TransportParameters,
}

impl crypto::ClientConfig for ClientCrypto {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        _: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        if version != QUIC_VERSION {
            return Err(ConnectError::UnsupportedVersion);
        }
        let offered = Arc::clone(&self.offered);
        Ok(Box::new(ClientSession::new(
            offered,
            parameters,
            self.assumed,
        )))
    }
}

struct ServerCrypto {
    supported: Arc<Protocols>,
}

impl crypto::ServerConfig for ServerCrypto {
    fn initial_keys(&self, version: u32, _: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        match version {
            QUIC_VERSION => Ok(space_keys()),
            _ => Err(UnsupportedVersion),
        }
    }

    // Clients drop every Retry, so its tag is never looked at.
    fn retry_tag(&self, _: u32, _: &ConnectionId, _: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn start_session(
        self: Arc<Self>,
        _: u32,
        parameters: &TransportParameters,
    ) -> Box<dyn Session> {
        Box::new(ServerSession::new(Arc::clone(&self.supported), parameters))
    }
}
