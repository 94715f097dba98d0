//! The one task of a node in kernel mode: control packets in, deadlines, tasks out.
//!
//! Owns the order: what the engine wants done is done in that order, and the pins are on the disk
//! before. The helper is waited for outside the tunnel's lock. It ends when the node is closed.

use super::KernelPlane;
use crate::tunnel::Tunnel;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant as Deadline;
use wiremesh_core::{KernelFigures, KernelTask};
use wiremesh_netadmin::client;
use wiremesh_wire::NodeId;
use wiremesh_wire::address::CONTROL_PORT;

/// The longest sleep: the runtime's timer may stop while the host sleeps, the engine's does not.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// A control packet is never longer.
const PACKET_BYTES_MAX: usize = 65_536;

/// Runs until the node is closed.
pub(crate) async fn run(tunnel: Arc<Tunnel>, plane: Arc<KernelPlane>) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut failing = false;
    loop {
        if tunnel.peek(|state, _| state.closed) {
            break;
        }
        let tasks = tunnel.with(|state, _| std::mem::take(&mut state.tasks));
        if !tasks.is_empty() {
            carry_out(&tunnel, &plane, tasks, &mut failing).await;
            continue;
        }
        let sleep = tokio::time::sleep_until(next_deadline(&tunnel));
        tokio::select! {
            received = plane.control.recv_from(&mut packet) => {
                // Errors report the fate of what was sent, which is repeated.
                if let Ok((len, from)) = received {
                    take(&tunnel, from, &packet[..len]);
                }
            }
            () = tunnel.wake.notified() => {}
            () = sleep => tunnel.with(|state, now| state.engine.handle_timeout(now)),
        }
    }
}

fn next_deadline(tunnel: &Tunnel) -> Deadline {
    let now = tunnel.host.now().instant;
    let at = tunnel.arm();
    Deadline::now() + at.saturating_since(now).min(SLEEP_MAX)
}

fn take(tunnel: &Tunnel, from: SocketAddr, payload: &[u8]) {
    let SocketAddr::V6(from) = from else {
        return;
    };
    if from.port() != CONTROL_PORT {
        return;
    }
    tunnel.with(|state, now| {
        if let Some(engine) = state.engine.kernel() {
            engine.handle_control(now, *from.ip(), payload);
        }
    });
}

/// What came of some tasks.
#[derive(Default)]
struct Outcome {
    /// Each of all peers of the interface.
    figures: Vec<Vec<KernelFigures>>,
    /// Peers of which the kernel was not told.
    failed: Vec<NodeId>,
    /// Why, the last time.
    failure: Option<client::Error>,
}

/// Does what the engine wants done, and tells it what came of it.
async fn carry_out(
    tunnel: &Arc<Tunnel>,
    plane: &Arc<KernelPlane>,
    tasks: Vec<KernelTask>,
    failing: &mut bool,
) {
    let plane = Arc::clone(plane);
    // The helper answers within a moment, or is gone.
    let work = tokio::task::spawn_blocking(move || {
        let mut outcome = Outcome::default();
        for task in tasks {
            let about = match &task {
                KernelTask::SetPeer(change) => Some(change.node_id),
                _ => None,
            };
            match plane.carry_out(task) {
                Ok(figures) => outcome.figures.extend(figures),
                Err(error) => {
                    outcome.failed.extend(about);
                    outcome.failure = Some(error);
                }
            }
        }
        outcome
    });
    let Ok(outcome) = work.await else {
        return;
    };
    // Once, and not for each of many peers: the helper may stay away for a while.
    match &outcome.failure {
        Some(error) if !*failing => tracing::error!(%error, "the kernel's WireGuard is not told"),
        None if *failing => tracing::info!("the kernel's WireGuard is told again"),
        _ => {}
    }
    *failing = outcome.failure.is_some();
    tunnel.with(|state, now| {
        if let Some(engine) = state.engine.kernel() {
            for node_id in &outcome.failed {
                engine.handle_failure(node_id);
            }
            for figures in &outcome.figures {
                engine.handle_figures(now, figures);
            }
        }
    });
}
