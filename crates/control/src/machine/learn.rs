//! What the machine learns from the peer's records and lists, and what it objects to.

use super::{Admission, Context, Exchange, Machine, Output, Refusal, WaitReason};
use crate::frame::{ExchangeId, MessageType};
use crate::message::{Abort, AbortCode, CAP_BARE_STREAMS, CAP_SESSION_GATE, Hello, Key};
use crate::policy::Stage;
use crate::record::SignedRecord;
use crate::suite::{Level, SuiteId, Suites};
use alloc::boxed::Box;
use alloc::vec::Vec;
use blake2::{Blake2s256, Digest};

impl Machine {
    /// Takes in a record of the peer that came from elsewhere: a ticket, a DHT, another peer.
    ///
    /// # Errors
    ///
    /// [`Refusal::Record`] when it is not valid for this peer, network and time.
    pub fn learn_record(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Refusal> {
        if self
            .record
            .as_ref()
            .is_some_and(|known| known.bytes() == bytes)
        {
            return Ok(());
        }
        let record = self.open_record(cx, bytes)?;
        if record.record().check_fresh(cx.unix_secs()).is_err() {
            return Err(Refusal::Record);
        }
        self.take_in(cx, record);
        Ok(())
    }

    /// A record that the peer has signed for this network, whatever its time.
    fn open_record(&self, cx: &Context<'_>, bytes: &[u8]) -> Result<SignedRecord, Refusal> {
        SignedRecord::open(bytes, &self.peer)
            .ok()
            .filter(|record| record.record().network == cx.local.network())
            .ok_or(Refusal::Record)
    }

    fn take_in(&mut self, cx: &mut Context<'_>, record: SignedRecord) {
        let facts = record.record();
        if facts.seq < self.pin.max_seq {
            // Replayed, or overtaken: it says nothing about now.
            return;
        }
        if self.pin.kem_pk_hash != facts.kem_pk_hash {
            self.static_ek = None;
        }
        let changed = self.pin.learn(
            facts.min_level,
            facts.seq,
            facts.kem_pk_hash,
            cx.unix_secs(),
        );
        if changed {
            cx.out.push(Output::SavePin(self.pin));
        }
        self.record = Some(Box::new(record));
        self.update_gate(cx);
        if !self.wanted && self.is_free() && !self.is_reached(cx.local) {
            self.wanted = true;
            self.retry_at = Some(cx.now.instant);
        }
    }

    /// What an OFFER or a REPLY says of its sender.
    pub(super) fn learn_hello(
        &mut self,
        cx: &mut Context<'_>,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        let mut untimely = None;
        if let Some(bytes) = &hello.record
            && self.learn_record(cx, bytes).is_err()
        {
            // If only its time is wrong, a clock is, its or ours: the record is of no use then, but
            // the two can agree without one, as the transcript covers the list.
            untimely = Some(self.open_record(cx, bytes)?);
        }
        // The list of a message must be the one of the record that it names.
        let known = self.record.as_deref().into_iter().chain(&untimely);
        for facts in known.map(SignedRecord::record) {
            if facts.seq == hello.own_seq && !facts.suites.same_as(&hello.suites) {
                return Err(Refusal::ListDiffersFromRecord);
            }
        }
        self.peer_has_session_gate = hello.caps & CAP_SESSION_GATE != 0;
        self.peer_holds = hello.peer_record;
        Ok(())
    }

    /// The peer has proved that it said this: what both can do is used from now on.
    pub(super) fn agree_on_caps(&mut self, cx: &Context<'_>, hello: &Hello) {
        self.bare_streams = cx.local.caps() & hello.caps & CAP_BARE_STREAMS != 0;
    }

    /// Why the two must not go on with the suite that both lists give; `None` if nothing is wrong.
    pub(super) fn objection(
        &self,
        cx: &Context<'_>,
        chosen: Option<SuiteId>,
        hello: &Hello,
    ) -> Option<(AbortCode, WaitReason)> {
        let policy = cx.local.policy();
        let minimum = policy
            .demanded()
            .max(self.settings.minimum.unwrap_or(Level::Classical));
        let theirs = hello.suites.best_level();
        let Some(level) = chosen.and_then(SuiteId::level) else {
            let below = theirs.is_none_or(|best| best < minimum);
            let code = match (below, policy.stage) {
                (true, Stage::NewOnly) => AbortCode::Retired,
                (true, _) => AbortCode::BelowMinLevel,
                _ => AbortCode::NoCommonSuite,
            };
            return Some((code, WaitReason::NoCommonSuite { theirs }));
        };
        let best = cx.local.suites().best_level()?;
        if level < self.pin.level.min(best) {
            let reason = WaitReason::BelowPin {
                pinned: self.pin.level,
            };
            return Some((AbortCode::BelowMinLevel, reason));
        }
        if level < minimum {
            return Some((AbortCode::BelowMinLevel, WaitReason::BelowMinimum { level }));
        }
        if level < hello.min_level {
            let reason = WaitReason::BelowPeersMinimum {
                promised: hello.min_level,
            };
            return Some((AbortCode::BelowMinLevel, reason));
        }
        None
    }

    /// B says no. Nothing of the offer is kept.
    pub(super) fn refuse(
        &mut self,
        cx: &mut Context<'_>,
        id: ExchangeId,
        code: AbortCode,
        reason: WaitReason,
    ) {
        let highest = cx.local.suites().highest();
        let agreement = match &self.exchange {
            Exchange::Held(agreement, _) | Exchange::Finished(agreement, _) => Some(agreement),
            _ => None,
        };
        let abort = Abort {
            code: code.number(),
            highest,
            mac: agreement.map(|keys| keys.abort_mac(self.role, code.number(), highest)),
            record: (code == AbortCode::StaleRecord).then(|| cx.local.record().bytes().to_vec()),
        };
        cx.send(MessageType::Abort, id, &abort.emit());
        self.wait_for(cx, reason);
    }

    /// A says no, and tries again later: the peer's policy may have changed by then.
    pub(super) fn give_up_with(
        &mut self,
        cx: &mut Context<'_>,
        code: AbortCode,
        reason: WaitReason,
    ) {
        self.refuse(cx, self.id, code, reason);
        self.exchange = Exchange::None;
        self.retry_later(cx);
    }

    /// A stranger is turned away, and told so.
    pub(super) fn turn_away(&mut self, cx: &mut Context<'_>) {
        self.refuse(cx, self.id, AbortCode::NotAdmitted, WaitReason::NotAdmitted);
        self.exchange = Exchange::None;
        self.admission = Admission::NeedsProof;
        self.wanted = false;
        cx.out.push(Output::Forget);
    }

    /// The peer says no. It may be forged by who breaks the tunnel, so it lowers nothing, opens
    /// nothing, and does not even end the exchange: that ends by itself.
    pub(super) fn on_abort(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        let running = match &self.exchange {
            Exchange::None | Exchange::Switch(_) | Exchange::Set(_) => false,
            _ => id == self.id,
        };
        if !running {
            return self.reject(cx, Refusal::Unexpected);
        }
        let Ok(abort) = Abort::parse(body) else {
            return self.reject(cx, Refusal::Malformed);
        };
        if let (Exchange::Finished(keys, _), Some(mac)) = (&self.exchange, &abort.mac)
            && !keys.verify_abort(self.role.other(), abort.code, abort.highest, mac)
        {
            return self.reject(cx, Refusal::Unauthenticated);
        }
        self.wait_for(
            cx,
            WaitReason::PeerRefused {
                code: abort.code,
                highest: abort.highest,
            },
        );
        // The only answer to an OFFER that helps along: the peer's newer record.
        let stale = abort.code == AbortCode::StaleRecord.number()
            && matches!(self.exchange, Exchange::Offered(..));
        let Some(record) = abort.record.filter(|_| stale) else {
            return;
        };
        let before = self.pin.max_seq;
        let is_newer = match self.learn_record(cx, &record) {
            Ok(()) => self.pin.max_seq > before,
            Err(_) if self.overtakes_ours(cx, &record) => {
                // Untimely, as in `learn_hello`, but the one that we hold is out of date.
                self.record = None;
                true
            }
            Err(refusal) => return self.reject(cx, refusal),
        };
        if is_newer {
            self.exchange = Exchange::None;
            self.wanted = true;
            self.retry_at = None;
            self.advance(cx);
        }
    }

    fn overtakes_ours(&self, cx: &Context<'_>, bytes: &[u8]) -> bool {
        let ours = self.record.as_ref().map(|record| record.record().seq);
        let theirs = self.open_record(cx, bytes).ok();
        theirs.is_some_and(|record| ours.is_some_and(|seq| seq < record.record().seq))
    }

    pub(super) fn on_get_key(&mut self, cx: &mut Context<'_>, id: ExchangeId) {
        let key = Key {
            record: cx.local.record().bytes().to_vec(),
            ek: cx.local.kem().map(|kem| Box::new(*kem.encapsulation_key())),
        };
        cx.send(MessageType::Key, id, &key.emit());
    }

    pub(super) fn on_key(&mut self, cx: &mut Context<'_>, id: ExchangeId, body: &[u8]) {
        let waiting = matches!(
            self.exchange,
            Exchange::KeyWanted(_) | Exchange::KeyMissing(_)
        );
        if !waiting || id != self.id {
            return self.reject(cx, Refusal::Unexpected);
        }
        let Ok(key) = Key::parse(body) else {
            return self.reject(cx, Refusal::Malformed);
        };
        if let Err(refusal) = self.learn_record(cx, &key.record) {
            return self.reject(cx, refusal);
        }
        if let Some(ek) = key.ek {
            let hash: [u8; 32] = Blake2s256::digest(*ek).into();
            if self.pin.kem_pk_hash != Some(hash) {
                return self.reject(cx, Refusal::WrongStaticKey);
            }
            self.static_ek = Some(ek);
        }
        match core::mem::replace(&mut self.exchange, Exchange::None) {
            Exchange::KeyWanted(_) => self.send_offer(cx),
            Exchange::KeyMissing(offer) if self.static_ek.is_some() => {
                self.on_offer(cx, id, offer);
            }
            _ => self.retry_later(cx),
        }
    }

    /// A list of a fresh record that names L1 alone, by a node that answers no control message:
    /// the second way to L1 (docs/spec.md section 7.2).
    pub(super) fn record_allows_legacy(&self, cx: &Context<'_>) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let facts = record.record();
            facts.check_fresh(cx.unix_secs()).is_ok()
                && facts.seq >= self.pin.max_seq
                && facts.suites.best_level() == Some(Level::Classical)
                && cx.local.suites().contains(SuiteId::WIREGUARD)
        })
    }

    /// The operator lowers the pin.
    pub fn lower_pin(&mut self, level: Level) {
        self.pin.level = self.pin.level.min(level);
    }

    /// What the peer listed last, in a signed message or a record.
    #[must_use]
    pub fn known_suites(&self) -> Option<Suites> {
        let recorded = self.record.as_ref().map(|record| record.record().suites);
        self.theirs.or(recorded)
    }

    /// The newest record of the peer.
    #[must_use]
    pub fn record_bytes(&self) -> Option<Vec<u8>> {
        Some(self.record.as_ref()?.bytes().to_vec())
    }
}
