//! Rules between the parts of a configuration.
//!
//! Owns: no peer twice, not the own key as a peer, and no address that two peers claim. The node
//! would refuse the same, but only the file knows the lines.

use super::Config;
use crate::failure::Failure;
use crate::keys;
use std::collections::HashMap;
use std::net::IpAddr;
use wiremesh::IpNet;
use wiremesh::address::{control_address, overlay_address};

/// Checks everything.
///
/// # Errors
///
/// The first rule that is broken, with both places.
pub fn check(config: &Config) -> Result<(), Failure> {
    unique_peers(config)?;
    disjoint_addresses(config)
}

fn unique_peers(config: &Config) -> Result<(), Failure> {
    let own = keys::node_id(&config.secret_key)?;
    let (mut ids, mut names) = (HashMap::new(), HashMap::new());
    for peer in &config.peers {
        if peer.node_id == own {
            return Err(
                Failure::input(format!("{own} is this node's own key, not a peer's"))
                    .at(&peer.place)
                    .fix("put the other side's public key there, or remove the peer"),
            );
        }
        if let Some(first) = ids.insert(peer.node_id, &peer.place) {
            return Err(
                Failure::input(format!("the peer {} comes twice", peer.node_id))
                    .at(format!("{} and line {}", peer.place, first.line))
                    .fix("merge the two into one"),
            );
        }
        let Some(name) = &peer.name else { continue };
        if let Some(first) = names.insert(name, &peer.place) {
            return Err(Failure::input(format!("two peers have the name `{name}`"))
                .at(format!("{} and line {}", peer.place, first.line))
                .fix("give one of them another name"));
        }
    }
    Ok(())
}

/// A prefix and who has it; `line` is `None` for an address that follows from a key.
struct Claim {
    net: IpNet,
    owner: Option<usize>,
    place: Option<(String, usize)>,
}

impl Claim {
    fn describe(&self, config: &Config) -> String {
        let owner = match self.owner {
            Some(index) => format!("peer {}", config.peers[index].label()),
            None => "this node".to_owned(),
        };
        match &self.place {
            Some((_, line)) => format!("{} of {owner} (line {line})", self.net),
            None => format!("{}, the own address of {owner},", self.net),
        }
    }
}

fn disjoint_addresses(config: &Config) -> Result<(), Failure> {
    let own = keys::node_id(&config.secret_key)?;
    let of_key = |id| {
        [
            IpAddr::V6(overlay_address(id)),
            IpAddr::V6(control_address(id)),
        ]
    };
    let mut claims: Vec<Claim> = Vec::new();
    let mut claim = |net, owner, place| claims.push(Claim { net, owner, place });
    // Our further addresses are no claims: a spoke's address lies in its hub's prefix.
    for address in of_key(&own) {
        claim(IpNet::host(address), None, None);
    }
    for (index, peer) in config.peers.iter().enumerate() {
        for address in of_key(&peer.node_id) {
            claim(IpNet::host(address), Some(index), None);
        }
        for (net, place) in &peer.allowed_ips {
            claim(*net, Some(index), Some((place.to_string(), place.line)));
        }
    }
    // Prefixes are nested or disjoint. Sorted, each comes right after the one around it.
    claims.sort_by_key(|claim| (claim.net.addr(), claim.net.prefix()));
    let mut around: Option<&Claim> = None;
    for claim in &claims {
        if let Some(outer) = around.filter(|outer| outer.net.overlaps(&claim.net)) {
            if outer.owner != claim.owner {
                return Err(overlap(config, outer, claim));
            }
            continue;
        }
        around = Some(claim);
    }
    Ok(())
}

fn overlap(config: &Config, outer: &Claim, inner: &Claim) -> Failure {
    let what = format!(
        "allowed IPs overlap: {} and {}",
        outer.describe(config),
        inner.describe(config).trim_end_matches(',')
    );
    let place = inner
        .place
        .as_ref()
        .or(outer.place.as_ref())
        .map(|(place, _)| place.as_str());
    let fix = if outer.place.is_some() && inner.place.is_some() {
        "give each address to one peer only; wg moves it silently to the later one, wiremesh does \
         not choose"
    } else {
        "leave fd77:6d00::/24 out: those addresses follow from the keys of the nodes"
    };
    Failure::input(what).at(place.unwrap_or_default()).fix(fix)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::failure::Failure;
    use std::path::Path;

    const OWN: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const OWN_ID: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    const A: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    const B: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn conf(peers: &[(&str, &str)]) -> Result<(), Failure> {
        let mut text = format!("[Interface]\nPrivateKey = {OWN}\nAddress = 10.0.0.9/24\n");
        for (key, nets) in peers {
            text += &format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {nets}\n");
        }
        parse(&text, Path::new("wg0.conf")).map(drop)
    }

    #[test]
    fn disjoint_prefixes_are_fine() {
        conf(&[
            (A, "10.0.0.0/25, fd00::/64"),
            (B, "10.0.0.128/25, ::ffff:0/120"),
        ])
        .expect("fine");
        conf(&[(A, "10.0.0.0/8, 10.1.0.0/16, 10.1.0.0/16"), (B, "")]).expect("same peer");
        conf(&[(A, "0.0.0.0/0, ::/1"), (B, "8000::/1")]).expect_err("keys' addresses");
        conf(&[(A, "0.0.0.0/0"), (B, "::/8")]).expect("families apart");
    }

    #[test]
    fn overlap_names_both_lines_and_peers() {
        for (a, b) in [
            ("10.0.0.0/8", "10.1.0.0/16"),
            ("10.1.2.3", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
        ] {
            let failure = conf(&[(A, a), (B, b)]).expect_err("overlaps");
            let text = failure.to_string();
            assert!(text.contains("line 6") && text.contains("line 9"), "{text}");
            assert!(text.contains(A) && text.contains(B), "{text}");
            assert_eq!(failure.exit.code(), 2);
        }
        // Nested in the outer of three, not in its neighbour.
        let failure = conf(&[(A, "10.0.0.0/8, 10.1.0.0/16"), (B, "10.2.0.0/16")]);
        assert!(
            failure
                .expect_err("overlaps")
                .to_string()
                .contains("10.0.0.0/8")
        );
    }

    #[test]
    fn addresses_of_keys_cannot_be_claimed() {
        let failure = conf(&[(A, "fd77:6d00::/24")]).expect_err("own address is in it");
        assert!(failure.to_string().contains("this node"), "{failure}");
    }

    #[test]
    fn same_key_twice_and_own_key_are_errors() {
        let text = conf(&[(A, ""), (B, ""), (A, "")])
            .expect_err("twice")
            .to_string();
        assert!(
            text.contains("twice") && text.contains("11:1 and line 5"),
            "{text}"
        );
        let text = conf(&[(OWN_ID, "")]).expect_err("own").to_string();
        assert!(text.contains("own key"), "{text}");
    }
}
