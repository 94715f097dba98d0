//! `struct virtio_net_hdr`, which is in front of each packet of a device with `IFF_VNET_HDR`.
//!
//! Owns its layout and the numbers in it; virtio specification 1.2, section 5.1.6. The device has
//! the ten bytes of the first version of it, in the machine's byte order.

/// The length of the header.
pub(crate) const LEN: usize = 10;

/// Flag: a checksum is still to be made, from `csum_start` to the end.
pub(crate) const NEEDS_CSUM: u8 = 1;

/// One packet.
pub(crate) const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub(crate) const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub(crate) const GSO_TCPV6: u8 = 4;
/// UDP, either version.
pub(crate) const GSO_UDP_L4: u8 = 5;
/// Beside a TCP type: only the first segment has CWR set.
pub(crate) const GSO_ECN: u8 = 0x80;

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    /// Bytes of all headers; what the kernel says here is only a hint.
    pub(crate) hdr_len: u16,
    /// Bytes of payload in each segment but the last.
    pub(crate) gso_size: u16,
    /// Where summing begins.
    pub(crate) csum_start: u16,
    /// Where the checksum goes, from there.
    pub(crate) csum_offset: u16,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; LEN]) -> Self {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
        }
    }

    pub(crate) fn emit(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let numbers = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ];
        for (place, number) in bytes[2..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}
