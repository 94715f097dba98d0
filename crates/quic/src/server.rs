//! The server's side of the handshake.
//!
//! Owns the order of messages: client hello in, server hello and parameters out, finished in; and
//! the choice of the protocol with the decision on 0-RTT data. Never accepts bytes out of that
//! order, never gives 0-RTT keys before or without a choice, and never leaves [`Step::Failed`].

use std::any::Any;
use std::sync::Arc;

use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError};

use crate::attachment::Attachment;
use crate::error::HandshakeError;
use crate::keys::{NullKey, packet_keys, space_keys};
use crate::message::{ClientHello, Inbox, Kind, emit_server_hello, emit_server_parameters};
use crate::parameters;
use crate::protocols::{HandshakeData, Protocols};

/// What happens next; reading and writing steps alternate as quinn calls them.
enum Step {
    AwaitClientHello,
    /// The server hello is to be written.
    SendHello(Vec<u8>),
    /// The server parameters are to be written.
    SendParameters,
    AwaitFinished,
    Done,
    Failed,
}

pub(crate) struct ServerSession {
    step: Step,
    inbox: Inbox,
    supported: Arc<Protocols>,
    /// Our parameters message, until it is written.
    local: Vec<u8>,
    peer: Option<TransportParameters>,
    early_data: bool,
    chosen: Option<HandshakeData>,
    attachment: Attachment,
}

impl ServerSession {
    pub(crate) fn new(supported: Arc<Protocols>, local: &TransportParameters) -> Self {
        Self {
            step: Step::AwaitClientHello,
            inbox: Inbox::default(),
            supported,
            local: emit_server_parameters(&parameters::canonical(local)),
            peer: None,
            early_data: false,
            chosen: None,
            attachment: Attachment::default(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<bool, HandshakeError> {
        match self.step {
            Step::AwaitClientHello => {
                let Some(body) = self.inbox.push(bytes, Kind::ClientHello)? else {
                    return Ok(false);
                };
                let hello = self.on_client_hello(ClientHello::parse(&body)?)?;
                self.step = Step::SendHello(hello);
                Ok(true)
            }
            Step::AwaitFinished => {
                let Some(body) = self.inbox.push(bytes, Kind::ClientFinished)? else {
                    return Ok(false);
                };
                if !body.is_empty() {
                    return Err(HandshakeError::Malformed("client finished"));
                }
                self.step = Step::Done;
                Ok(false)
            }
            _ => Err(HandshakeError::OutOfTurn),
        }
    }

    /// Chooses the protocol and gives the server hello to send.
    fn on_client_hello(&mut self, hello: ClientHello<'_>) -> Result<Vec<u8>, HandshakeError> {
        let parameters = parameters::parse(Side::Server, hello.parameters)?;
        let Some((protocol, position)) = self.supported.choose(&hello.protocols) else {
            let offered = hello.protocols.names().to_vec();
            return Err(HandshakeError::NoCommonProtocol { offered });
        };
        // 0-RTT data was written for the client's first name.
        let early_data = position == 0;
        let message = emit_server_hello(early_data, protocol);
        self.chosen = Some(HandshakeData {
            protocol: protocol.to_vec(),
        });
        self.early_data = early_data;
        self.peer = Some(parameters);
        Ok(message)
    }
}

impl Session for ServerSession {
    fn initial_keys(&self, _: &ConnectionId, _: Side) -> Keys {
        space_keys()
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.chosen
            .clone()
            .map(|data| Box::new(data) as Box<dyn Any>)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.attachment.clone()))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.early_data
            .then(|| (Box::new(NullKey) as _, Box::new(NullKey) as _))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.chosen.as_ref().map(|_| self.early_data)
    }

    fn is_handshaking(&self) -> bool {
        !matches!(self.step, Step::Done)
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.read(bytes).map_err(|error| {
            self.step = Step::Failed;
            error.into()
        })
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer)
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        match &mut self.step {
            Step::SendHello(hello) => {
                out.append(hello);
                self.step = Step::SendParameters;
                Some(space_keys())
            }
            Step::SendParameters => {
                *out = std::mem::take(&mut self.local);
                self.step = Step::AwaitFinished;
                Some(space_keys())
            }
            Step::AwaitClientHello | Step::AwaitFinished | Step::Done | Step::Failed => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        Some(packet_keys())
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    // There is no secret here to export from.
    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}
