//! Admission by invitation: a member signs the newcomer's node id and a date, and the club lets in
//! whoever shows that, without ever having heard of the newcomer.
//!
//! ```sh
//! cargo run -p wiremesh --example invitation    # all three here, on loopback
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wiremesh::{
    Admission, AdmissionRequest, ConnectError, InvalidSignature, Node, NodeBuilder, NodeId,
    SIGNATURE_LEN, SecretKey, Target,
};

const PROTOCOL: &str = "example-club/1";
/// What the signature is for: it means nothing anywhere else.
const CONTEXT: &[u8] = b"example invitation.rs v1";
const INVITATION_LEN: usize = 32 + 8 + SIGNATURE_LEN;

/// Who invites, until when (seconds since 1970), and the inviter's signature over the newcomer's
/// node id and that time.
fn invite(inviter: &SecretKey, newcomer: &NodeId, expiry: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    let id = wiremesh::node_id(inviter)?;
    let signature = wiremesh::sign(inviter, CONTEXT, &signed(newcomer, expiry));
    Ok([id.as_bytes(), &expiry.to_be_bytes()[..], &signature].concat())
}

fn signed(newcomer: &NodeId, expiry: u64) -> Vec<u8> {
    [newcomer.as_bytes(), &expiry.to_be_bytes()[..]].concat()
}

/// Whether the request shows a valid invitation by one of the members.
fn is_invited(request: &AdmissionRequest, members: &[NodeId]) -> bool {
    let check = || -> Option<Result<(), InvalidSignature>> {
        let shown: &[u8; INVITATION_LEN] = request.proof().try_into().ok()?;
        let (inviter, rest) = shown.split_first_chunk::<32>()?;
        let (expiry, signature) = rest.split_first_chunk::<8>()?;
        let inviter = NodeId::from_bytes(inviter).ok()?;
        let expiry = u64::from_be_bytes(*expiry);
        // The cheap checks first: strangers pay for none of this.
        if !members.contains(&inviter) || expiry <= now() {
            return None;
        }
        let message = signed(&request.node_id(), expiry);
        let signature = signature.try_into().ok()?;
        Some(wiremesh::verify(&inviter, CONTEXT, &message, signature))
    };
    matches!(check(), Some(Ok(())))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn loopback() -> NodeBuilder {
    Node::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .connect_timeout(Duration::from_secs(2))
}

async fn club(members: Vec<NodeId>) -> Result<Node, Box<dyn Error>> {
    let admission = Admission::proof(move |request| {
        // Signatures cost 50 us each; somebody who floods us with them can wait.
        if request.under_load() || !is_invited(&request, &members) {
            return request.refuse();
        }
        // The answer may come later and from anywhere: after a look into a database, or from the
        // person at the door.
        tokio::spawn(async move {
            println!("club: {} has an invitation", request.node_id());
            request.admit();
        });
    });
    let node = loopback().protocol(PROTOCOL).admission(admission);
    Ok(node.bind().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let member = SecretKey::from_bytes(*blake3::hash(b"any 32 secret bytes").as_bytes());
    let club = club(vec![wiremesh::node_id(&member)?]).await?;
    let ticket = club.ticket();

    let newcomer = loopback().bind().await?;
    let invitation = invite(&member, &newcomer.id(), now() + 3_600)?;
    let target = Target::from(&ticket).with_proof(invitation.clone());
    let connection = newcomer.connect(target, PROTOCOL).await?;
    println!("newcomer: I am in ({})", connection.security().level);

    // The same invitation in other hands, one that is over, and none at all.
    let late = invite(&member, &newcomer.id(), now() - 1)?;
    for (who, shown) in [
        ("gatecrasher", invitation),
        ("too late", late),
        ("nobody", vec![]),
    ] {
        let node = loopback().bind().await?;
        match node
            .connect(Target::from(&ticket).with_proof(shown), PROTOCOL)
            .await
        {
            Err(error @ ConnectError::Security { .. } | error @ ConnectError::NoAnswer { .. }) => {
                println!("{who}: {error}");
            }
            other => return Err(format!("expected a refusal, got {other:?}").into()),
        }
    }
    newcomer.close().await;
    club.close().await;
    Ok(())
}
