//! The allowed IPs of a peer, replaced while the node runs.

use super::Node;
use crate::allowed_ips::Overlap;
use crate::peer::PeerKey;
use wiremesh_wire::IpNet;

impl Node {
    /// Replaces the prefixes that a peer has beside its overlay addresses; sessions go on.
    /// `false` if there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Overlap`] with another peer; nothing has changed then. Never with
    /// [`crate::Routing::AsGiven`].
    pub fn set_allowed_ips(
        &mut self,
        key: PeerKey,
        allowed_ips: &[IpNet],
    ) -> Result<bool, Overlap> {
        let Some(peer) = self.peers.of(key) else {
            return Ok(false);
        };
        let prefixes = &mut self.shared.prefixes;
        let own = prefixes.own(peer.overlay, peer.control);
        peer.allowed_ips = prefixes.replace(key, &own, &peer.allowed_ips, allowed_ips)?;
        Ok(true)
    }
}
