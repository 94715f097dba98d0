//! Key pairs made by the real `wg` tool, and the overlay address of a key.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::process::{Command, Stdio};

use blake2::{Blake2s256, Digest as _};
use data_encoding::BASE64;

use crate::outcome::{Outcome, fail};
use crate::process::{run, run_words};

/// A secret key and its public key in the base64 that `wg` shows.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The secret key; it lives only as long as the test.
    pub secret: String,
    /// The public key, which is the node id.
    pub public: String,
}

impl KeyPair {
    /// Makes a new pair with `wg genkey` and `wg pubkey`.
    pub fn generate() -> Outcome<Self> {
        let secret = run_words(&["wg", "genkey"])?.trim().to_owned();
        let mut child = Command::new("wg")
            .arg("pubkey")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().expect("stdin is piped");
        input.write_all(secret.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return fail("wg pubkey failed");
        }
        let public = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { secret, public })
    }
}

/// Makes a new preshared key with `wg genpsk`.
pub fn generate_psk() -> Outcome<String> {
    Ok(run(Command::new("wg").arg("genpsk"))?.trim().to_owned())
}

/// The 32 bytes of a key in base64.
pub fn key_bytes(base64: &str) -> Outcome<[u8; 32]> {
    match BASE64.decode(base64.as_bytes()).map(<[u8; 32]>::try_from) {
        Ok(Ok(bytes)) => Ok(bytes),
        _ => fail("a key is 32 bytes in base64"),
    }
}

/// A key as the configuration protocol of user-space WireGuard wants it.
pub fn key_hex(base64: &str) -> Outcome<String> {
    Ok(hex(&key_bytes(base64)?))
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The overlay address that belongs to a key (docs/spec.md, addresses), computed apart from the
/// product.
pub fn overlay_address(public: &str) -> Outcome<Ipv6Addr> {
    address(0xfd77_6d00, b"wiremesh address v1", public)
}

/// The control address that belongs to a key.
pub fn control_address(public: &str) -> Outcome<Ipv6Addr> {
    address(0xfd77_6d80, b"wiremesh control v1", public)
}

fn address(front: u128, context: &[u8], public: &str) -> Outcome<Ipv6Addr> {
    let mut digest = Blake2s256::new();
    digest.update(context);
    digest.update(key_bytes(public)?);
    let digest = digest.finalize();
    let head: [u8; 16] = digest[..16].try_into().expect("the digest has 32 bytes");
    Ok(Ipv6Addr::from_bits(
        (front << 96) | (u128::from_be_bytes(head) >> 25),
    ))
}
