//! The role of A, the node with the smaller id: OFFER, FIN, and the switch at DONE.

use super::{Admission, Context, Exchange, Machine, Output, Refusal, Repeated, Slot, WaitReason};
use crate::exchange::{self, Agreement};
use crate::frame::{ExchangeId, MessageType};
use crate::message::{Hello, Reply};
use crate::suite::{Level, SuiteId, choose};
use alloc::boxed::Box;
use alloc::vec::Vec;

impl Machine {
    /// Starts an exchange; for L3 the peer's static key comes first.
    pub(super) fn begin_offer(&mut self, cx: &mut Context<'_>) {
        let mut id = [0; 8];
        cx.random.fill(&mut id);
        self.id = ExchangeId(id);
        self.began = cx.now.instant;
        self.wanted = false;
        self.outdated = false;
        let lists_static = cx.local.suites().contains(SuiteId::HYBRID_STATIC);
        let may_have_one = self
            .record
            .as_ref()
            .is_none_or(|record| record.record().kem_pk_hash.is_some());
        if lists_static && may_have_one && self.static_ek.is_none() {
            self.exchange = Exchange::KeyWanted(self.repeated(cx, MessageType::GetKey, Vec::new()));
        } else {
            self.send_offer(cx);
        }
        if !cx.open_session && self.waiting.is_none() {
            self.wait_for(cx, WaitReason::Exchanging);
        }
    }

    pub(super) fn send_offer(&mut self, cx: &mut Context<'_>) {
        self.last_epoch = self.last_epoch.wrapping_add(1).max(1);
        let hello = self.hello(cx, None);
        let (offered, body) = exchange::offer(
            &cx.local.party(),
            hello,
            self.last_epoch,
            &self.peer,
            self.static_ek.as_deref(),
            cx.random,
        );
        let repeated = self.repeated(cx, MessageType::Offer, body);
        self.exchange = Exchange::Offered(Box::new(offered), repeated);
    }

    /// Sends a message of ours and keeps it for repetition.
    pub(super) fn repeated(
        &self,
        cx: &mut Context<'_>,
        kind: MessageType,
        body: Vec<u8>,
    ) -> Repeated {
        cx.send(kind, self.id, &body);
        Repeated {
            kind,
            body,
            began: cx.now.instant,
            sent: 0,
        }
    }

    /// What we say of ourselves in an OFFER or a REPLY. The record is left out if the peer's last
    /// message, whose hash is `held`, named it.
    pub(super) fn hello(&self, cx: &mut Context<'_>, held: Option<&[u8; 32]>) -> Hello {
        let local = cx.local;
        let mut nonce = [0; 16];
        cx.random.fill(&mut nonce);
        let mut grease = [0; 3];
        cx.random.fill(&mut grease);
        let suites = match grease[2] & 1 {
            0 => *local.suites(),
            _ => local.suites().with_grease([grease[0], grease[1]]),
        };
        let record = local.record();
        let known = *held.unwrap_or(&self.peer_holds) == record.hash();
        Hello {
            nonce,
            min_level: local.policy().promised(),
            suites,
            own_seq: record.record().seq,
            peer_record: self.record.as_ref().map_or([0; 32], |r| r.hash()),
            caps: local.caps(),
            record: (!known).then(|| record.bytes().to_vec()),
            proof: self.settings.proof.clone(),
            network: Hello::network_prefix(&local.network()),
        }
    }

    pub(super) fn on_reply(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        let Exchange::Offered(offered, _) = &self.exchange else {
            return self.reject(cx, Refusal::Unexpected);
        };
        if id != self.id {
            return self.reject(cx, Refusal::Unexpected);
        }
        let Ok(reply) = Reply::parse(body) else {
            return self.reject(cx, Refusal::Malformed);
        };
        let chosen = choose(&offered.hello().suites, &reply.hello.suites);
        if chosen != Some(reply.chosen) {
            return self.reject(cx, Refusal::WrongSuite);
        }
        let accepted = offered.accept_reply(&cx.local.party(), &self.peer, &reply, body, cx.random);
        let Ok((agreement, fin)) = accepted else {
            return self.reject(cx, Refusal::Unauthenticated);
        };
        // From here on the message is the peer's own.
        if let Err(refusal) = self.learn_hello(cx, &reply.hello) {
            return self.reject(cx, refusal);
        }
        self.theirs = Some(reply.hello.suites);
        if let Some((code, reason)) = self.objection(cx, Some(reply.chosen), &reply.hello) {
            self.update_gate(cx);
            return self.give_up_with(cx, code, reason);
        }
        self.agree_on_caps(cx, &reply.hello);
        let agreement = Box::new(agreement);
        if self.admission == Admission::Admitted {
            return self.send_fin(cx, agreement, fin);
        }
        if self.admission == Admission::NeedsProof {
            self.admission = Admission::Asked;
            self.asked_at = cx.now.instant;
            cx.out
                .push(Output::Ask(reply.hello.proof.unwrap_or_default()));
        }
        self.exchange = Exchange::Held(agreement, fin);
    }

    pub(super) fn send_fin(
        &mut self,
        cx: &mut Context<'_>,
        agreement: Box<Agreement>,
        fin: Vec<u8>,
    ) {
        self.update_gate(cx);
        // What it refused before, it has answered now.
        self.waiting
            .take_if(|(reason, _)| matches!(reason, WaitReason::PeerRefused { .. }));
        let suite = agreement.suite();
        let repeated = self.repeated(cx, MessageType::Fin, fin);
        if suite != SuiteId::WIREGUARD {
            let (slot, _) = Agreement::clone_slot(&agreement);
            self.urgent = self.is_switch_urgent(cx, slot.level);
            cx.out.push(Output::Candidate(slot));
            // The kernel holds one key only, and has it in the slot when DONE has come.
            if self.urgent && self.both_tell_sessions() {
                cx.out.push(Output::Handshake);
            }
        }
        self.exchange = Exchange::Finished(agreement, repeated);
    }

    /// A rotation waits for the next natural handshake, so that no packet is lost. A first upgrade
    /// does not, nor does a peer that has lost its key, nor a kernel that may not be open yet.
    pub(super) fn is_switch_urgent(&self, cx: &Context<'_>, level: Level) -> bool {
        let before = self.slot.and_then(|slot| slot.suite.level());
        let unsure = !self.confirmed && !self.both_tell_sessions();
        !cx.open_session || self.peer_lost_key || before < Some(level) || unsure
    }

    pub(super) fn on_done(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        let Exchange::Finished(agreement, _) = &self.exchange else {
            return self.reject(cx, Refusal::Unexpected);
        };
        if id != self.id || !agreement.verify_done(body) {
            return self.reject(cx, Refusal::Unauthenticated);
        }
        let Exchange::Finished(agreement, _) =
            core::mem::replace(&mut self.exchange, Exchange::None)
        else {
            return;
        };
        if agreement.suite() == SuiteId::WIREGUARD {
            return self.open_legacy(cx);
        }
        let (slot, suite) = Agreement::clone_slot(&agreement);
        self.confirmed &= !self.urgent;
        self.install(cx, (slot, suite));
        self.began = cx.now.instant;
        self.switch_tries = 0;
        self.exchange = Exchange::Switch(agreement);
        if self.urgent {
            cx.out.push(Output::Handshake);
        }
    }
}

/// A key without the exchange that made it.
impl Agreement {
    pub(super) fn clone_slot(agreement: &Agreement) -> (Slot, SuiteId) {
        let suite = agreement.suite();
        let slot = Slot {
            psk: agreement.psk().clone(),
            epoch: agreement.epoch(),
            level: suite.level().unwrap_or(Level::Classical),
        };
        (slot, suite)
    }
}
