//! The one task of a node: socket in, deadlines, socket out.
//!
//! Owns the receive buffers. Everything it does is a turn under the tunnel's lock; it ends when
//! the node is closed.

use crate::alarm::Alarm;
use crate::tunnel::Tunnel;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant as Deadline;
use wiremesh_core::Path;
use wiremesh_device::Arrival;
use wiremesh_udp::RecvBatch;
use wiremesh_wire::Content;

/// The longest sleep: the runtime's timer may stop while the host sleeps, the engine's does not.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How often the local address towards the peers is looked at.
const ADDRESS_CHECK_EVERY: Duration = Duration::from_secs(5);
/// Least time between two binds, so that a lasting failure does not spin.
const REBIND_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the node is closed.
pub(crate) async fn run(tunnel: Arc<Tunnel>) {
    let alarm = Alarm::new();
    let mut batch = RecvBatch::default();
    let mut arrival = Arrival::default();
    let mut address_check = tokio::time::interval(ADDRESS_CHECK_EVERY);
    address_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut local_addresses = Vec::new();
    let mut rebound_at: Option<Deadline> = None;
    loop {
        let (closed, blocked, rebind) =
            tunnel.peek(|s, _| (s.closed, s.outbox.is_blocked(), s.rebind_wanted));
        if closed {
            break;
        }
        if rebind {
            rebind_sockets(&tunnel, &mut rebound_at).await;
            continue;
        }
        let sleep = alarm.sleep(&tunnel.host, next_deadline(&tunnel));
        tokio::select! {
            biased;
            // First, or a flood of datagrams would keep it from ever being looked at. The engine's
            // deadlines are looked at with each batch.
            _ = address_check.tick() => check_addresses(&tunnel, &mut local_addresses),
            received = tunnel.plane.sockets.recv(&mut batch) => match received {
                Ok(()) => {
                    handle_batch(&tunnel, &mut batch);
                    // Its turn, or a flood of datagrams would keep the host from being heard.
                    pump(&tunnel, &mut arrival);
                }
                Err(error) => {
                    tracing::warn!(%error, "receiving failed");
                    tunnel.with(|state, _| state.rebind_wanted = true);
                }
            },
            result = tunnel.plane.sockets.writable(), if blocked => {
                if result.is_err() {
                    tunnel.with(|state, _| state.rebind_wanted = true);
                }
                tunnel.with(|_, _| ());
            }
            _ = device_readable(&tunnel), if !blocked => pump(&tunnel, &mut arrival),
            () = tunnel.wake.notified() => {
                // Whoever woke us may have more to add to the batch in its next turn.
                tokio::task::yield_now().await;
                tunnel.with(|_, _| ());
            }
            () = sleep => tunnel.with(|state, now| state.engine.handle_timeout(now)),
        }
    }
    // A rebind of ours may have opened them again while the node was being closed.
    let _ = tunnel.plane.sockets.rebind_to(&[]);
}

/// In how long the engine or the egress scheduler wants to be called.
fn next_deadline(tunnel: &Tunnel) -> Duration {
    let now = tunnel.host.now().instant;
    let at = tunnel.arm();
    at.saturating_since(now).min(SLEEP_MAX)
}

fn handle_batch(tunnel: &Tunnel, batch: &mut RecvBatch) {
    tunnel.with(|state, now| {
        for datagram in batch.datagrams_mut() {
            let Some(engine) = state.engine.own() else {
                return;
            };
            let path = Path {
                remote: datagram.source,
                local: datagram.local,
            };
            let Some(received) = engine.handle_datagram(now, path, datagram.data) else {
                continue;
            };
            let packet = &mut datagram.data[received.packet];
            let (peer, ecn) = (received.peer, datagram.ecn);
            match received.content {
                Content::Stream => tunnel.handle_stream(state, peer, packet, ecn),
                _ => tunnel.handle_inbound(state, now, peer, packet, ecn),
            }
        }
        state.engine.handle_timeout(now);
    });
    if let Some(device) = &tunnel.plane.device {
        device.flush();
    }
}

/// Ready when the host has sent something; never without an interface.
async fn device_readable(tunnel: &Tunnel) -> io::Result<()> {
    match &tunnel.plane.device {
        Some(device) => device.readable().await,
        None => std::future::pending().await,
    }
}

fn pump(tunnel: &Tunnel, arrival: &mut Arrival) {
    let Some(device) = &tunnel.plane.device else {
        return;
    };
    if let Err(error) = tunnel.pump(device, arrival) {
        // An interface that is down takes nothing and gives nothing; it may come up again.
        tracing::warn!(%error, interface = device.name(), "reading from the interface failed");
    }
}

async fn rebind_sockets(tunnel: &Tunnel, last: &mut Option<Deadline>) {
    if let Some(last) = *last {
        tokio::time::sleep_until(last + REBIND_PAUSE).await;
    }
    *last = Some(Deadline::now());
    match tunnel.plane.sockets.rebind() {
        Ok(_) => {
            tracing::info!("UDP sockets bound anew");
            tunnel.with(|state, now| {
                state.rebind_wanted = false;
                state.engine.on_local_address_changed(now);
            });
        }
        Err(error) => tracing::warn!(%error, "UDP sockets cannot be bound; trying again"),
    }
}

/// Peers learn a new address of ours from the next packet: send one when the route changed. Looks
/// towards the latest peer of each family, so that a look costs the same with any number of them.
fn check_addresses(tunnel: &Tunnel, known: &mut Vec<std::net::IpAddr>) {
    let remotes = tunnel.peek(|state, _| state.recent_remotes);
    let addresses: Vec<_> = remotes
        .into_iter()
        .flatten()
        .filter_map(|r| tunnel.plane.sockets.local_address_towards(r).ok())
        .collect();
    if addresses.is_empty() {
        return;
    }
    let changed = !known.is_empty() && addresses.iter().any(|address| !known.contains(address));
    if known.is_empty() || changed {
        *known = addresses;
    }
    if changed {
        tracing::info!("the local address changed: telling the peers");
        tunnel.with(|state, now| state.engine.on_local_address_changed(now));
    }
}
