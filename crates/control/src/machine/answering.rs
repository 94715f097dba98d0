//! The role of B, the node with the greater id: POKE, REPLY, and the switch at FIN.

use super::{Admission, Context, EXCHANGES_APART, Exchange, Machine, Output, Refusal, WaitReason};
use crate::exchange::{self, Agreement};
use crate::frame::{ExchangeId, MessageType};
use crate::message::{AbortCode, Hello, Offer};
use crate::suite::{SuiteId, choose};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// The longest pause between two pokes.
const POKE_PAUSE_MAX: Duration = Duration::from_secs(64);
/// With so many unanswered, 15 s have passed, which is more than an exchange takes.
const POKES_UNTIL_SILENT: u32 = 4;

impl Machine {
    /// Asks A to offer. At first contact A does so by itself, so that one waits 1 s.
    pub(super) fn poke(&mut self, cx: &mut Context<'_>) {
        if self.retry_at.is_some() || self.theirs.is_some() {
            let mut id = [0; 8];
            cx.random.fill(&mut id);
            cx.send(MessageType::Poke, ExchangeId(id), &[]);
        }
        if self.pokes >= POKES_UNTIL_SILENT {
            self.wait_for_silence(cx);
        } else if !cx.open_session && self.waiting.is_none() {
            self.wait_for(cx, WaitReason::Exchanging);
        }
        let pause = Duration::from_secs(1 << self.pokes.min(6)).min(POKE_PAUSE_MAX);
        self.pokes = self.pokes.saturating_add(1);
        self.retry_at = Some(cx.now.instant + pause);
    }

    pub(super) fn on_offer(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: Vec<u8>) {
        if id == self.id {
            match &self.exchange {
                // Repeated: our answer was lost.
                Exchange::Replied(_, reply) => return cx.send(MessageType::Reply, id, reply),
                Exchange::KeyMissing(_) => return cx.send(MessageType::GetKey, id, &[]),
                Exchange::Set(_) | Exchange::Waiting(_) => return,
                _ => {}
            }
        } else if cx.now.instant.saturating_since(self.began) < EXCHANGES_APART
            && matches!(self.exchange, Exchange::Replied(..) | Exchange::Set(_))
        {
            return self.reject(cx, Refusal::TooSoon);
        }
        let Ok(offer) = Offer::parse(&body) else {
            return self.reject(cx, Refusal::Malformed);
        };
        // Whatever comes of it, A is not silent.
        self.pokes = 0;
        let hello = &offer.hello;
        if hello.network != Hello::network_prefix(&cx.local.network()) {
            return self.refuse(cx, id, AbortCode::OtherNetwork, WaitReason::OtherNetwork);
        }
        if let Err(refusal) = self.learn_hello(cx, hello) {
            return self.reject(cx, refusal);
        }
        if cx.local.is_stale(&hello.peer_record) {
            return self.refuse(cx, id, AbortCode::StaleRecord, WaitReason::Exchanging);
        }
        let chosen = choose(&hello.suites, cx.local.suites());
        if let Some((code, reason)) = self.objection(cx, chosen, hello) {
            return self.refuse(cx, id, code, reason);
        }
        let Some(chosen) = chosen else {
            return;
        };
        let newest = hello.peer_record == cx.local.record().hash();
        if chosen == SuiteId::HYBRID_STATIC && !(newest && offer.static_ct.is_some()) {
            // A may know no static key of ours, or another one.
            return self.refuse(cx, id, AbortCode::StaleRecord, WaitReason::Exchanging);
        }
        self.id = id;
        self.began = cx.now.instant;
        if self.admission != Admission::Admitted {
            if self.admission == Admission::NeedsProof {
                self.asked_at = cx.now.instant;
                let proof = hello.proof.clone().unwrap_or_default();
                cx.out.push(Output::Ask(proof));
            }
            self.admission = Admission::Asked;
            self.exchange = Exchange::Waiting(body);
            return;
        }
        if chosen == SuiteId::HYBRID_STATIC && self.static_ek.is_none() {
            cx.send(MessageType::GetKey, id, &[]);
            self.exchange = Exchange::KeyMissing(body);
            return;
        }
        self.send_reply(cx, chosen, &offer, &body);
    }

    fn send_reply(&mut self, cx: &mut Context<'_>, chosen: SuiteId, offer: &Offer, body: &[u8]) {
        let hello = self.hello(cx, Some(&offer.hello.peer_record));
        let answer = exchange::reply(
            &cx.local.party(),
            hello,
            chosen,
            &self.peer,
            offer,
            body,
            self.static_ek.as_deref(),
            cx.random,
        );
        let Ok((replied, reply)) = answer else {
            return self.reject(cx, Refusal::Malformed);
        };
        cx.send(MessageType::Reply, self.id, &reply);
        self.exchange = Exchange::Replied(Box::new(replied), reply);
        self.outdated = false;
        if !cx.open_session && self.waiting.is_none() {
            self.wait_for(cx, WaitReason::Exchanging);
        }
    }

    pub(super) fn on_fin(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        if id != self.id {
            return self.reject(cx, Refusal::Unexpected);
        }
        let agreement = match &self.exchange {
            // Repeated: our DONE was lost.
            Exchange::Set(agreement) => {
                return cx.send(MessageType::Done, id, &agreement.done());
            }
            Exchange::Replied(replied, _) => replied.accept_fin(&self.peer, body),
            _ => return self.reject(cx, Refusal::Unexpected),
        };
        let Ok(agreement) = agreement else {
            return self.reject(cx, Refusal::Unauthenticated);
        };
        let Exchange::Replied(replied, _) = core::mem::replace(&mut self.exchange, Exchange::None)
        else {
            return;
        };
        // A promise of the peer may have come in since its offer.
        let objection = self.objection(cx, Some(agreement.suite()), replied.peer_hello());
        if let Some((code, reason)) = objection {
            self.refuse(cx, id, code, reason);
            return self.retry_later(cx);
        }
        self.theirs = Some(replied.peer_hello().suites);
        self.agree_on_caps(cx, replied.peer_hello());
        self.wanted = false;
        self.pokes = 0;
        let done = agreement.done();
        if agreement.suite() == SuiteId::WIREGUARD {
            // Before the packets that the open gate lets out, which A would refuse without it.
            cx.send(MessageType::Done, id, &done);
            self.open_legacy(cx);
        } else {
            let (slot, suite) = Agreement::clone_slot(&agreement);
            self.urgent = self.is_switch_urgent(cx, slot.level);
            if self.urgent && self.peer_has_session_gate {
                cx.out.push(Output::ExpectHandshake);
            }
            self.confirmed &= !self.urgent;
            self.replaced = false;
            self.install(cx, (slot, suite));
            self.began = cx.now.instant;
            cx.send(MessageType::Done, id, &done);
        }
        self.exchange = Exchange::Set(Box::new(agreement));
    }
}
