//! What is proven with every make of the other side, each with either side as the initiator.

use crate::runner::{Scenario, busy, waits};

pub mod access;
pub mod bulk;
pub mod cookie;
pub mod psk;
pub mod reach;
pub mod rekey;
pub mod restart;
pub mod roam;

/// All scenarios. Those that move addresses come last: in the guest all share one link.
pub const ALL: &[Scenario] = &[
    busy(
        "they_initiate_and_ping_works_both_ways",
        reach::they_initiate,
    ),
    busy("we_initiate_and_ping_works_both_ways", reach::we_initiate),
    busy("an_existing_wg0_conf_works", reach::by_wg_conf),
    busy("bulk_is_echoed_when_they_initiate", bulk::they_initiate),
    busy("bulk_is_echoed_when_we_initiate", bulk::we_initiate),
    busy("the_same_psk_on_both_sides_works", psk::the_same),
    busy(
        "a_wrong_psk_blocks_them_until_it_is_mended",
        psk::wrong_when_they_initiate,
    ),
    busy(
        "a_wrong_psk_blocks_us_until_it_is_mended",
        psk::wrong_when_we_initiate,
    ),
    waits(
        "the_initiator_rekeys_after_120_s_and_no_packet_is_lost",
        rekey::both_roles,
    ),
    busy(
        "under_load_we_answer_only_with_their_cookie",
        cookie::from_us,
    ),
    busy(
        "under_load_they_send_a_cookie_and_we_use_it",
        cookie::from_them,
    ),
    waits(
        "they_restart_and_traffic_flows_again",
        restart::they_restart,
    ),
    waits("we_restart_and_traffic_flows_again", restart::we_restart),
    busy("their_address_moves", roam::their_address),
    busy("their_port_moves", roam::their_port),
    busy("our_address_moves", roam::our_address),
];
