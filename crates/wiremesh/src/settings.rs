//! What of a running node can be changed that `wg set` changes on an interface.
//!
//! Owns the UDP port, the mark of datagrams and the MTU. What concerns a peer is in `peer.rs`; the key of a
//! node never changes.

use crate::error::BindError;
use crate::host_interface::InterfaceError;
use crate::node::Node;
use std::io;
use wiremesh_core::InvalidEgress;

impl Node {
    /// Listens on this UDP port from now on, on all addresses; 0 takes one that is free. Sessions
    /// go on: every peer with one is told by a packet from the new port.
    ///
    /// # Errors
    ///
    /// The port cannot be had; the node goes on where it listened before.
    pub fn listen_on(&self, port: u16) -> Result<(), BindError> {
        let tunnel = self.tunnel();
        if tunnel.plane.kernel.is_some() {
            return Err(BindError::Interface(InterfaceError::Port));
        }
        let rebound = tunnel.plane.sockets.rebind_any(port);
        if rebound.is_err()
            && let Err(error) = tunnel.plane.sockets.rebind()
        {
            tracing::warn!(%error, "UDP sockets cannot be bound; trying again");
            self.rebind();
        }
        rebound.map_err(BindError::Sockets)?;
        tunnel.with(|state, now| state.engine.on_local_address_changed(now));
        Ok(())
    }

    /// Sets the pace of all that leaves, in bits per second of UDP datagrams with their IP headers: a
    /// little below what the uplink carries, so that what is urgent does not wait in a router behind
    /// what is not. `None` takes it away. Streams go on.
    ///
    /// # Errors
    ///
    /// A rate below 8 kbit/s or above 1 Tbit/s.
    pub fn set_egress_rate(&self, rate_bits: Option<u64>) -> Result<(), InvalidEgress> {
        self.tunnel().set_egress_rate(rate_bits)
    }

    /// Follows the MTU of the interface, which the host may change: padding never goes beyond it.
    pub fn set_device_mtu(&self, mtu_bytes: u16) {
        self.tunnel().with(|state, _| {
            if let Some(engine) = state.engine.own() {
                engine.set_mtu(mtu_bytes);
            }
        });
    }

    /// Marks every datagram that the node sends, for the host's routing rules (`SO_MARK`); 0 is no
    /// mark.
    ///
    /// # Errors
    ///
    /// The program has no `CAP_NET_ADMIN`, or the platform no marks; in kernel mode always.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        if self.tunnel().plane.kernel.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.tunnel().plane.sockets.set_mark(mark)
    }
}
