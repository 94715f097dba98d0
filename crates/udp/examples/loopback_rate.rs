//! Measures sending and receiving on loopback: `cargo run --release -p wiremesh-udp --example
//! loopback_rate [SECONDS]`. One thread sends, one receives; 1,452-byte datagrams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wiremesh_udp::{RecvBatch, Transmit, UdpConfig, UdpSockets};

const DATAGRAM_BYTES: usize = 1452;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for segmentation_offload in [false, true] {
        runtime.block_on(measure(segmentation_offload, Duration::from_secs(seconds)))?;
    }
    Ok(())
}

async fn measure(
    segmentation_offload: bool,
    duration: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let config = UdpConfig {
        segmentation_offload,
        ..UdpConfig::default()
    };
    let address = "127.0.0.1:0".parse()?;
    let receiver = Arc::new(UdpSockets::bind_with(&[address], config.clone())?);
    let sender = UdpSockets::bind_with(&[address], config)?;
    let destination = receiver.local_addresses()[0];
    let reading = tokio::spawn({
        let receiver = receiver.clone();
        async move {
            let mut batch = RecvBatch::default();
            while receiver.recv(&mut batch).await.is_ok() {}
        }
    });
    let segments = sender.max_segments().min(65_507 / DATAGRAM_BYTES);
    let contents = vec![7; DATAGRAM_BYTES * segments];
    let started = Instant::now();
    while started.elapsed() < duration {
        for _ in 0..64 {
            sender
                .send(&Transmit {
                    destination,
                    source: None,
                    ecn: 0,
                    segment_size: Some(DATAGRAM_BYTES),
                    contents: &contents,
                })
                .await?;
        }
        tokio::task::yield_now().await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    reading.abort();
    let (sent, received) = (sender.counters(), receiver.counters());
    println!(
        "offload {segmentation_offload}: sent {:.0} k/s {:.2} Gbit/s, received {:.0} k/s {:.2} \
         Gbit/s, {:.1} datagrams per receive call",
        sent.sent_datagrams as f64 / elapsed / 1e3,
        sent.sent_bytes as f64 * 8.0 / elapsed / 1e9,
        received.received_datagrams as f64 / elapsed / 1e3,
        received.received_bytes as f64 * 8.0 / elapsed / 1e9,
        received.received_datagrams as f64 / received.receive_syscalls.max(1) as f64,
    );
    Ok(())
}
