//! The client's side of the handshake.
//!
//! Owns the order of messages: hello out, server hello in, server parameters in, finished out.
//! Never accepts bytes out of that order, and never leaves [`Step::Failed`].

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
use crate::message::{
    Inbox, Kind, ServerHello, emit_client_finished, emit_client_hello, parse_parameters,
};
use crate::parameters;
use crate::protocols::{HandshakeData, Protocols};

/// What happens next; reading and writing steps alternate as quinn calls them.
enum Step {
    /// The hello is to be written.
    SendHello(Vec<u8>),
    AwaitServerHello,
    /// Quinn is to be given the keys of the Handshake space.
    EnterHandshake,
    AwaitServerParameters,
    SendFinished,
    Done,
    Failed,
}

pub(crate) struct ClientSession {
    step: Step,
    inbox: Inbox,
    offered: Arc<Protocols>,
    /// The assumed parameters until the server's arrive.
    parameters: TransportParameters,
    early_data: Option<bool>,
    chosen: Option<HandshakeData>,
    attachment: Attachment,
}

impl ClientSession {
    pub(crate) fn new(
        offered: Arc<Protocols>,
        local: &TransportParameters,
        assumed: TransportParameters,
    ) -> Self {
        let hello = emit_client_hello(&offered, &parameters::canonical(local));
        Self {
            step: Step::SendHello(hello),
            inbox: Inbox::default(),
            offered,
            parameters: assumed,
            early_data: None,
            chosen: None,
            attachment: Attachment::default(),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<bool, HandshakeError> {
        match self.step {
            Step::AwaitServerHello => {
                let Some(body) = self.inbox.push(bytes, Kind::ServerHello)? else {
                    return Ok(false);
                };
                self.on_server_hello(ServerHello::parse(&body)?)?;
                self.step = Step::EnterHandshake;
                Ok(true)
            }
            Step::AwaitServerParameters => {
                let Some(body) = self.inbox.push(bytes, Kind::ServerParameters)? else {
                    return Ok(false);
                };
                self.parameters = parameters::parse(Side::Client, parse_parameters(&body)?)?;
                self.step = Step::SendFinished;
                Ok(false)
            }
            _ => Err(HandshakeError::OutOfTurn),
        }
    }

    fn on_server_hello(&mut self, hello: ServerHello<'_>) -> Result<(), HandshakeError> {
        let position = self
            .offered
            .position(hello.protocol)
            .ok_or(HandshakeError::Illegal(
                "server chose a protocol that was not offered",
            ))?;
        // 0-RTT data belongs to the first name; read under another it would be misunderstood.
        if hello.early_data && position != 0 {
            return Err(HandshakeError::Illegal(
                "early data accepted for another protocol",
            ));
        }
        self.early_data = Some(hello.early_data);
        self.chosen = Some(HandshakeData {
            protocol: hello.protocol.to_vec(),
        });
        Ok(())
    }
}

impl Session for ClientSession {
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
        Some((Box::new(NullKey), Box::new(NullKey)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.early_data
    }

    fn is_handshaking(&self) -> bool {
        !matches!(self.step, Step::SendFinished | Step::Done)
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.read(bytes).map_err(|error| {
            self.step = Step::Failed;
            error.into()
        })
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(Some(self.parameters))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        match &mut self.step {
            Step::SendHello(hello) => {
                out.append(hello);
                self.step = Step::AwaitServerHello;
                None
            }
            Step::EnterHandshake => {
                self.step = Step::AwaitServerParameters;
                Some(space_keys())
            }
            Step::SendFinished => {
                out.extend_from_slice(&emit_client_finished());
                self.step = Step::Done;
                Some(space_keys())
            }
            Step::AwaitServerHello | Step::AwaitServerParameters | Step::Done | Step::Failed => {
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        Some(packet_keys())
    }

    // Inside a tunnel the source address is proven, so no server sends a Retry; quinn drops it.
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
