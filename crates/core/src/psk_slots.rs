//! The preshared keys of one peer: the boot key, and those that an exchange has agreed on.
//!
//! Owns the order in which keys are tried and answered with. Never does: agree on a key, or decide
//! when one comes or goes. Source: docs/spec.md, "Suites".

use alloc::boxed::Box;
use wiremesh_wire::PresharedKey;

/// The level of every session under the boot key, whatever that key is.
const BOOT_LEVEL: u8 = 1;

/// Which preshared key made a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PskTag {
    pub(crate) epoch: u32,
    pub(crate) level: u8,
}

/// One preshared key.
pub(crate) struct PskSlot {
    pub(crate) psk: PresharedKey,
    pub(crate) tag: PskTag,
}

/// The keys of a peer. Without any that were agreed on, the boot key is all there is.
pub(crate) struct PskSlots {
    boot: PskSlot,
    agreed: Option<Box<Agreed>>,
}

#[derive(Default)]
struct Agreed {
    primary: Option<PskSlot>,
    alternate: Option<PskSlot>,
}

impl PskSlots {
    /// The boot key is the one in force before any exchange: zero, or the operator's.
    pub(crate) fn new(psk: PresharedKey, epoch: u32) -> Self {
        let tag = PskTag {
            epoch,
            level: BOOT_LEVEL,
        };
        Self {
            boot: PskSlot { psk, tag },
            agreed: None,
        }
    }

    pub(crate) fn set_boot(&mut self, psk: PresharedKey, epoch: u32) {
        self.boot.psk = psk;
        self.boot.tag.epoch = epoch;
    }

    /// Puts a key first. The one that was first becomes the alternate, unless it is the boot key,
    /// which is always there.
    pub(crate) fn set_primary(&mut self, slot: PskSlot) {
        let agreed = self.agreed.get_or_insert_default();
        let old = agreed.primary.replace(slot);
        let known = |slot: &Option<PskSlot>| slot.as_ref().map(|slot| slot.tag);
        if known(&old) != known(&agreed.primary) {
            agreed.alternate = old;
        }
    }

    /// Adds a key that the peer may have put first already, in the place of the last one.
    pub(crate) fn set_alternate(&mut self, slot: PskSlot) {
        self.agreed.get_or_insert_default().alternate = Some(slot);
    }

    /// The peer holds the agreed key of this epoch: it is first, and no alternate is needed. Does
    /// nothing if no such key is here.
    pub(crate) fn settle(&mut self, epoch: u32) {
        let Some(agreed) = &mut self.agreed else {
            return;
        };
        let is_it = |slot: &Option<PskSlot>| slot.as_ref().is_some_and(|s| s.tag.epoch == epoch);
        if is_it(&agreed.alternate) {
            agreed.primary = agreed.alternate.take();
        } else if is_it(&agreed.primary) {
            agreed.alternate = None;
        }
    }

    /// The key in front has proven good: the alternate is not needed any more.
    pub(crate) fn settle_first(&mut self) {
        if let Some(agreed) = &mut self.agreed {
            agreed.alternate = None;
        }
    }

    /// Puts the boot key in front; the one that was there becomes the alternate.
    pub(crate) fn step_back(&mut self) {
        if let Some(agreed) = &mut self.agreed {
            agreed.alternate = agreed.primary.take();
        }
    }

    /// Forgets all keys but the boot key.
    pub(crate) fn forget_agreed(&mut self) {
        self.agreed = None;
    }

    /// The keys in the order in which a response is tried: at most three.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &PskSlot> {
        let agreed = self.agreed.as_deref();
        let primary = agreed.and_then(|agreed| agreed.primary.as_ref());
        let alternate = agreed.and_then(|agreed| agreed.alternate.as_ref());
        let first = primary.unwrap_or(&self.boot);
        let last = primary.map(|_| &self.boot);
        [Some(first), alternate, last].into_iter().flatten()
    }

    /// The key to answer an initiation with: the first one; or, when the last answer was not taken
    /// up, the one behind the key of that answer, in a circle.
    pub(crate) fn to_answer_with(&self, not_taken_up: Option<PskTag>) -> &PskSlot {
        let last = not_taken_up.and_then(|tag| self.in_order().position(|slot| slot.tag == tag));
        last.and_then(|last| self.in_order().nth(last + 1))
            .or_else(|| self.in_order().next())
            .unwrap_or(&self.boot)
    }

    /// The highest level of a session that these keys can make.
    pub(crate) fn best_level(&self) -> u8 {
        self.in_order()
            .map(|slot| slot.tag.level)
            .max()
            .unwrap_or(BOOT_LEVEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn slot(epoch: u32) -> PskSlot {
        PskSlot {
            psk: PresharedKey::from_bytes([epoch as u8; 32]),
            tag: PskTag { epoch, level: 2 },
        }
    }

    fn order(slots: &PskSlots) -> Vec<u32> {
        slots.in_order().map(|slot| slot.tag.epoch).collect()
    }

    fn boot_only() -> PskSlots {
        PskSlots::new(PresharedKey::default(), 0)
    }

    #[test]
    fn keys_are_tried_primary_first_and_boot_last() {
        let mut slots = boot_only();
        assert_eq!((order(&slots), slots.best_level()), (vec![0], 1));
        slots.set_alternate(slot(1));
        assert_eq!(order(&slots), [0, 1], "the boot key is first until then");
        slots.set_primary(slot(1));
        assert_eq!(order(&slots), [1, 0], "the boot key is no alternate");
        slots.set_alternate(slot(2));
        assert_eq!((order(&slots), slots.best_level()), (vec![1, 2, 0], 2));
        slots.set_primary(slot(2));
        assert_eq!(order(&slots), [2, 1, 0]);
        slots.set_primary(slot(2));
        assert_eq!(order(&slots), [2, 1, 0], "the same key again");
        slots.settle(9);
        assert_eq!(order(&slots), [2, 1, 0], "no such key");
        slots.settle(1);
        assert_eq!(order(&slots), [1, 0]);
        slots.settle(1);
        assert_eq!(order(&slots), [1, 0]);
        slots.forget_agreed();
        assert_eq!(order(&slots), [0]);
    }

    #[test]
    fn answers_that_are_not_taken_up_go_round_all_keys() {
        let answer = |slots: &PskSlots, last: Option<u32>| {
            let level = |epoch| if epoch == 0 { 1 } else { 2 };
            let last = last.map(|epoch| PskTag {
                epoch,
                level: level(epoch),
            });
            slots.to_answer_with(last).tag.epoch
        };
        let mut slots = boot_only();
        assert_eq!(answer(&slots, None), 0);
        assert_eq!(answer(&slots, Some(0)), 0);
        slots.set_primary(slot(1));
        slots.set_alternate(slot(2));
        assert_eq!(answer(&slots, None), 1);
        assert_eq!(answer(&slots, Some(1)), 2);
        assert_eq!(answer(&slots, Some(2)), 0);
        assert_eq!(answer(&slots, Some(0)), 1);
        assert_eq!(answer(&slots, Some(7)), 1, "a key that is gone");
    }
}
