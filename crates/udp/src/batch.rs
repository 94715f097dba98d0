//! The memory into which datagrams are received.
//!
//! Owns a few 64 KiB buffers; each may hold one datagram or, with receive offload, a run of equally
//! long datagrams from one sender (the last may be shorter). Never copies: datagrams are views,
//! and a whole buffer can be taken out.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta};

/// Size of one receive buffer: the longest run of datagrams that a kernel coalesces.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Number of buffers in a batch made by `RecvBatch::default()` (512 KiB of memory).
pub const BUFFERS_DEFAULT: usize = 8;

/// One received datagram, a view into its batch.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The UDP payload; never empty.
    pub data: &'a mut [u8],
    /// Who sent it; never an IPv4-mapped IPv6 address.
    pub source: SocketAddr,
    /// Our address to which it was sent, where the platform tells.
    pub local: Option<IpAddr>,
    /// The two ECN bits of the IP header, 0 to 3.
    pub ecn: u8,
}

/// One filled buffer: a run of datagrams from one sender, each `stride` bytes long but the last.
#[derive(Debug)]
pub struct RecvBuffer<'a> {
    /// The position for [`RecvBatch::take_buffer`].
    pub index: usize,
    /// All bytes of the run.
    pub data: &'a mut [u8],
    /// The length of each datagram but the last, which may be shorter; at least 1.
    pub stride: usize,
    /// Who sent it; never an IPv4-mapped IPv6 address.
    pub source: SocketAddr,
    /// Our address to which it was sent, where the platform tells.
    pub local: Option<IpAddr>,
    /// The two ECN bits of the IP header, 0 to 3.
    pub ecn: u8,
}

#[derive(Debug, Clone, Copy)]
struct Filled {
    len: usize,
    stride: usize,
    source: SocketAddr,
    local: Option<IpAddr>,
    ecn: u8,
}

/// Buffers for one receive call, to be used again and again.
#[derive(Debug)]
pub struct RecvBatch {
    buffers: Vec<Vec<u8>>,
    filled: Vec<Filled>,
    spare: Vec<Vec<u8>>,
}

impl Default for RecvBatch {
    fn default() -> Self {
        RecvBatch::new(BUFFERS_DEFAULT)
    }
}

impl RecvBatch {
    /// Makes a batch of so many buffers, from 1 to what the platform receives in one call (32 on
    /// Linux); other values are clamped. Costs 64 KiB of memory per buffer once it is used.
    pub fn new(buffers: usize) -> Self {
        let count = buffers.clamp(1, BATCH_SIZE);
        RecvBatch {
            buffers: (0..count).map(|_| vec![0; BUFFER_BYTES]).collect(),
            filled: Vec::with_capacity(count),
            spare: Vec::new(),
        }
    }

    /// Whether the last receive call left nothing in it.
    pub fn is_empty(&self) -> bool {
        self.filled.iter().all(|filled| filled.len == 0)
    }

    /// Gives the number of datagrams, without those in buffers that were taken out.
    pub fn datagram_count(&self) -> usize {
        self.filled
            .iter()
            .map(|filled| filled.len.div_ceil(filled.stride))
            .sum()
    }

    /// Gives the datagrams in the order in which they arrived.
    ///
    /// Empty datagrams carry nothing for any caller: they are counted and left out.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.buffers_mut().flat_map(|buffer| {
            let RecvBuffer {
                source, local, ecn, ..
            } = buffer;
            buffer
                .data
                .chunks_mut(buffer.stride)
                .map(move |data| Datagram {
                    data,
                    source,
                    local,
                    ecn,
                })
        })
    }

    /// Gives the filled buffers with the datagrams still joined, in the order of arrival.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = RecvBuffer<'_>> {
        let pairs = self.buffers.iter_mut().zip(&self.filled).enumerate();
        pairs
            .filter(|(_, (_, filled))| filled.len > 0)
            .map(|(index, (buffer, filled))| RecvBuffer {
                index,
                data: &mut buffer[..filled.len],
                stride: filled.stride,
                source: filled.source,
                local: filled.local,
                ecn: filled.ecn,
            })
    }

    /// Takes a filled buffer out without copying; its datagrams leave the batch.
    ///
    /// Gives `None` when there is no such buffer or it holds nothing. The vector keeps 64 KiB of
    /// capacity: worth it for a long run, not for one short datagram. Give it back with
    /// [`RecvBatch::recycle`]; otherwise the next receive call allocates another one.
    pub fn take_buffer(&mut self, index: usize) -> Option<Vec<u8>> {
        let filled = self.filled.get_mut(index).filter(|filled| filled.len > 0)?;
        let mut buffer = std::mem::take(&mut self.buffers[index]);
        buffer.truncate(filled.len);
        filled.len = 0;
        Some(buffer)
    }

    /// Takes a buffer back for later use; keeps at most as many as the batch has buffers.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() >= BUFFER_BYTES && self.spare.len() < self.buffers.len() {
            self.spare.push(buffer);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.filled.clear();
    }

    /// Fills the batch with one receive call; gives datagrams (also empty ones) and bytes.
    pub(crate) fn fill(
        &mut self,
        bound: IpAddr,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        self.filled.clear();
        self.replace_taken();
        let count = self.buffers.len();
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
            IoSliceMut::new(buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..]))
        });
        let received = receive(&mut slices[..count], &mut metas[..count])?;
        let (mut datagrams, mut bytes) = (0, 0);
        for meta in &metas[..received] {
            let filled = Filled::new(meta, bound);
            datagrams += filled.len.div_ceil(filled.stride).max(1);
            bytes += filled.len;
            self.filled.push(filled);
        }
        Ok((datagrams, bytes))
    }

    fn replace_taken(&mut self) {
        for buffer in self
            .buffers
            .iter_mut()
            .filter(|buffer| buffer.len() != BUFFER_BYTES)
        {
            *buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(BUFFER_BYTES, 0);
        }
    }
}

impl Filled {
    fn new(meta: &RecvMeta, bound: IpAddr) -> Self {
        let local = meta.dst_ip.or((!bound.is_unspecified()).then_some(bound));
        Filled {
            len: meta.len.min(BUFFER_BYTES),
            stride: if meta.stride == 0 {
                meta.len.max(1)
            } else {
                meta.stride
            },
            source: canonical(meta.addr),
            local: local.map(|address| address.to_canonical()),
            ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
        }
    }
}

/// Gives the one form of an address that compares equal for equal endpoints: no IPv4-mapped
/// address and no flow label.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => {
                let mut v6 = v6;
                v6.set_flowinfo(0);
                SocketAddr::V6(v6)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn meta(len: usize, stride: usize) -> RecvMeta {
        let addr = "192.0.2.1:7".parse().expect("valid address");
        RecvMeta {
            addr,
            len,
            stride,
            ..RecvMeta::default()
        }
    }

    fn filled_with(runs: &[(usize, usize)]) -> (RecvBatch, (usize, usize)) {
        let mut batch = RecvBatch::new(4);
        let counts = batch
            .fill(ANY, |slices, metas| {
                for (i, &(len, stride)) in runs.iter().enumerate() {
                    slices[i][..len].fill(i as u8 + 1);
                    metas[i] = meta(len, stride);
                }
                Ok(runs.len())
            })
            .expect("the closure succeeds");
        (batch, counts)
    }

    #[test]
    fn a_run_is_split_at_its_stride_and_the_last_may_be_short() {
        let (mut batch, counts) = filled_with(&[(250, 100), (7, 7)]);
        assert_eq!(counts, (4, 257));
        assert_eq!(batch.datagram_count(), 4);
        let lengths: Vec<usize> = batch.datagrams_mut().map(|d| d.data.len()).collect();
        assert_eq!(lengths, [100, 100, 50, 7]);
    }

    #[test]
    fn an_empty_datagram_is_counted_and_left_out() {
        let (mut batch, counts) = filled_with(&[(0, 0), (3, 3)]);
        assert_eq!(counts, (2, 3));
        assert_eq!(batch.datagrams_mut().count(), 1);
        assert!(!batch.is_empty());
    }

    #[test]
    fn a_taken_buffer_leaves_the_batch_and_is_replaced() {
        let (mut batch, _) = filled_with(&[(250, 100), (7, 7)]);
        let taken = batch.take_buffer(0).expect("buffer 0 is filled");
        assert_eq!(taken, vec![1; 250]);
        assert_eq!(batch.take_buffer(0), None);
        assert_eq!(batch.take_buffer(9), None);
        assert_eq!(batch.datagram_count(), 1);
        let pointer = taken.as_ptr();
        batch.recycle(taken);
        let _ = batch.fill(ANY, |slices, _| {
            assert!(slices.iter().all(|slice| slice.len() == BUFFER_BYTES));
            assert_eq!(
                slices[0].as_ptr(),
                pointer,
                "the recycled buffer is used again"
            );
            Ok(0)
        });
        assert!(batch.is_empty());
    }

    #[test]
    fn a_failed_receive_leaves_the_batch_empty() {
        let (mut batch, _) = filled_with(&[(5, 5)]);
        let result = batch.fill(ANY, |_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert!(result.is_err());
        assert!(batch.is_empty());
    }

    #[test]
    fn addresses_are_canonical() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().expect("valid address");
        assert_eq!(
            canonical(mapped),
            "192.0.2.1:7".parse().expect("valid address")
        );
        let labelled = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 99, 3);
        let plain = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 0, 3);
        assert_eq!(canonical(labelled.into()), plain.into());
    }

    #[test]
    fn the_number_of_buffers_is_clamped() {
        assert_eq!(RecvBatch::new(0).buffers.len(), 1);
        assert_eq!(RecvBatch::new(usize::MAX).buffers.len(), BATCH_SIZE);
    }
}
