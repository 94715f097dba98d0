//! Endpoints, networks and keys as people type them: what parses is shown as text that parses to
//! the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use wiremesh_wire::{Endpoint, HostName, IpNet, NodeId, PresharedKey, SecretKey};

/// Reads the text as everything that it could be.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    shown_and_read::<Endpoint>(text);
    shown_and_read::<HostName>(text);
    shown_and_read::<IpNet>(text);
    shown_and_read::<NodeId>(text);
    if let Ok(net) = text.parse::<IpNet>() {
        assert!(net.contains(net.addr()) && net.overlaps(&net));
        assert!(IpNet::host(net.addr()).overlaps(&net));
    }
    if let Ok(node_id) = NodeId::from_base32(text) {
        let written = node_id.to_base32();
        assert!(written.eq_ignore_ascii_case(text.trim_ascii()));
    }
    if let Ok(key) = text.parse::<SecretKey>() {
        assert_eq!(SecretKey::from_str(&key.to_base64()), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(text.trim()), "a secret shows");
    }
    if let Ok(key) = text.parse::<PresharedKey>() {
        assert_eq!(PresharedKey::from_str(&key.to_base64()), Ok(key));
    }
    if let Ok(bytes) = bytes.try_into()
        && let Ok(node_id) = NodeId::from_bytes(bytes)
    {
        assert_eq!(node_id.to_string().parse(), Ok(node_id));
    }
}

fn shown_and_read<T>(text: &str)
where
    T: FromStr<Err: Display + Debug + PartialEq> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse(), Ok(value)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
