//! The interface of `wiremesh up`: what a configuration needs of the host.
//!
//! Owns the routes; the library asks the helper, and names what is missing with the remedy.

use crate::config::Config;
use std::path::Path;
use wiremesh::HostInterface;

/// With routes to what is configured for stock peers; those to all nodes are there always.
pub fn wanted(config: &Config, name: &str, helper: &Path) -> HostInterface {
    let mut interface = HostInterface::new(name).helper(helper);
    for peer in &config.peers {
        for (net, _) in &peer.allowed_ips {
            interface = interface.route(*net);
        }
    }
    interface
}
