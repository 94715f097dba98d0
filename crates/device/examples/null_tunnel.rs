//! The null tunnel: what a tunnel on this machine can reach at most. See `bench/tunnel`.
//!
//! Carries super-packets of a TUN device as they are over UDP with segmentation offload: no cutting
//! into IP packets, no joining, no peers, no handshake, and at choice ChaCha20-Poly1305 under a
//! constant key. Never for data that matters.
//!
//!     null_tunnel INTERFACE LOCAL:PORT REMOTE:PORT none|chacha

#[cfg(target_os = "linux")]
mod linux {
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::error::Error;
    use std::net::SocketAddr;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use wiremesh_device::Tun;
    use wiremesh_udp::{RecvBatch, SendError, Transmit, UdpSockets};

    /// With WireGuard's overhead and the headers of UDP and IPv4 this makes 1,500.
    const CHUNK: usize = 1440;
    const HEADER: usize = 16;
    const TAG: usize = 16;

    /// The cipher, or none: then the room for header and tag is sent all the same.
    struct Cipher(Option<LessSafeKey>);

    impl Cipher {
        fn new(name: &str) -> Result<Self, Box<dyn Error>> {
            match name {
                "none" => Ok(Self(None)),
                "chacha" => {
                    let key = UnboundKey::new(&CHACHA20_POLY1305, &[9; 32])?;
                    Ok(Self(Some(LessSafeKey::new(key))))
                }
                _ => Err("the cipher is none or chacha".into()),
            }
        }

        fn seal(
            &self,
            counter: u64,
            chunk: &[u8],
            out: &mut Vec<u8>,
        ) -> Result<(), aws_lc_rs::error::Unspecified> {
            out.extend_from_slice(&[0; HEADER - 8]);
            out.extend_from_slice(&counter.to_le_bytes());
            let start = out.len();
            out.extend_from_slice(chunk);
            let mut tag = [0; TAG];
            if let Some(key) = &self.0 {
                let data = &mut out[start..];
                let sealed = key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), data)?;
                tag.copy_from_slice(sealed.as_ref());
            }
            out.extend_from_slice(&tag);
            Ok(())
        }

        fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
            let (header, body) = datagram.split_at_mut_checked(HEADER)?;
            let len = body.len().checked_sub(TAG)?;
            let counter = u64::from_le_bytes(*header.last_chunk()?);
            if let Some(key) = &self.0 {
                key.open_in_place(nonce(counter), Aad::empty(), body).ok()?;
            }
            Some(&body[..len])
        }
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [interface, local, remote, cipher] = args.as_slice() else {
            return Err("usage: null_tunnel INTERFACE LOCAL:PORT REMOTE:PORT none|chacha".into());
        };
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse()?, remote.parse()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let tun = Arc::new(Tun::create(Some(interface))?);
        // One thread waits for the host alone.
        fcntl_setfl(&*tun, fcntl_getfl(&*tun)? - OFlags::NONBLOCK)?;
        let sockets = Arc::new(UdpSockets::bind(&[local])?);
        drop(entered);
        let (ours, theirs) = (Cipher::new(cipher)?, Cipher::new(cipher)?);
        let (from, to) = (tun.clone(), sockets.clone());
        std::thread::spawn(move || {
            let error = outbound(&from, &to, remote, &ours).err();
            eprintln!("outbound ended: {error:?}");
            std::process::exit(1);
        });
        runtime.block_on(inbound(&tun, &sockets, &theirs))
    }

    fn outbound(
        tun: &Tun,
        sockets: &UdpSockets,
        remote: SocketAddr,
        cipher: &Cipher,
    ) -> Result<(), Box<dyn Error>> {
        let mut read = vec![0; 1 << 17];
        let mut out = Vec::with_capacity(1 << 17);
        let mut counter = 0;
        loop {
            let Ok(len) = rustix::io::read(tun.as_fd(), &mut *read) else {
                // Down, until the interface has been configured.
                std::thread::sleep(std::time::Duration::from_millis(20));
                continue;
            };
            out.clear();
            for chunk in read[..len].chunks(CHUNK) {
                cipher.seal(counter, chunk, &mut out)?;
                counter += 1;
            }
            let transmit = Transmit {
                destination: remote,
                source: None,
                ecn: 0,
                segment_size: (len > CHUNK).then_some(CHUNK + HEADER + TAG),
                contents: &out,
            };
            // A full socket drops, as an interface does.
            if let Err(SendError::Fatal(error)) = sockets.try_send(&transmit) {
                return Err(error.into());
            }
        }
    }

    async fn inbound(
        tun: &Tun,
        sockets: &UdpSockets,
        cipher: &Cipher,
    ) -> Result<(), Box<dyn Error>> {
        let mut batch = RecvBatch::default();
        let mut whole = Vec::with_capacity(1 << 17);
        loop {
            sockets.recv(&mut batch).await?;
            for run in batch.buffers_mut() {
                whole.clear();
                for datagram in run.data.chunks_mut(run.stride) {
                    whole.extend_from_slice(cipher.open(datagram).unwrap_or_default());
                }
                // The device refuses what is not whole.
                let _ = rustix::io::write(tun.as_fd(), &whole);
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
