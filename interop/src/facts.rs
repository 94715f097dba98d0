//! Facts about stock WireGuard that the agreement on a security level rests on, examined with the
//! stock implementations themselves. The outcome is docs/decisions/wireguard-facts.md.
//!
//! The one under examination is the subject. Opposite is wireguard-go, or a probe where a message
//! has to be wrong or has to come at a certain moment. Our own node has no part in it.

use crate::runner::{Scenario, busy, waits};

pub mod duo;
mod in_place;
mod knock;
mod mismatch;
mod pace;
pub mod probe;
mod readd;
mod strange;
mod upgrade;
pub mod wg;

/// All scenarios, the same for each make.
pub const ALL: &[Scenario] = &[
    busy("settings_in_place_keep_the_session", in_place::settings),
    busy(
        "the_psk_counts_that_is_set_when_the_response_comes",
        in_place::read_late,
    ),
    waits(
        "a_psk_set_at_different_times_loses_no_packet",
        in_place::apart,
    ),
    waits(
        "an_initiator_drops_a_response_under_another_psk_silently",
        mismatch::of_initiator,
    ),
    busy(
        "a_responder_keeps_its_session_but_not_the_one_before",
        mismatch::of_responder,
    ),
    busy("a_knock_is_148_bytes_and_no_handshake", knock::bytes),
    waits("knocks_hold_back_the_dead_peer_timer", knock::black_hole),
    waits("a_response_holds_back_initiations_for_5_s", knock::hold_off),
    busy("remove_and_add_is_one_request", readd::one_request),
    busy(
        "remove_and_add_kills_sessions_and_forgets_the_timestamp",
        readd::kills,
    ),
    busy("the_endpoint_read_back_is_used_again", readd::endpoint),
    busy("strange_messages_are_dropped_silently", strange::dropped),
    busy("fifty_initiations_a_second_are_answered", pace::accepted),
    waits("a_second_remove_and_add_at_once_costs_5_s", pace::twice),
    busy("the_first_upgrade_of_two_kernel_nodes", upgrade::first),
];
