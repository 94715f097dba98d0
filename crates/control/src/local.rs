//! Who we are in the control protocol: key, network, policy, and our own signed record.
//!
//! Owns the record that we publish and when it is signed anew. docs/spec.md section 7.2.

use crate::Random;
use crate::exchange::Party;
use crate::kem::KemSecret;
use crate::message::{CAP_BARE_STREAMS, CAP_SESSION_GATE};
use crate::policy::{Policy, PolicyError};
use crate::record::{Record, SignedRecord};
use crate::suite::{Level, Suites};
use alloc::vec::Vec;
use blake2::{Blake2s256, Digest};
use core::fmt;
use core::time::Duration;
use wiremesh_wire::{NetworkId, NodeId, SecretKey, UnixTime};

/// How long a record of ours is valid.
const RECORD_LIFETIME_SECS: u64 = 24 * 3_600;
/// When it is signed anew: half of that.
const RECORD_RENEWED_SECS: u64 = RECORD_LIFETIME_SECS / 2;
/// Records of ours that a peer may still hold.
const OLDER_MAX: usize = 4;

/// Who carries out what the control protocol decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Plane {
    /// Our engine: the gate is per session, both preshared keys can be tried. The default.
    #[default]
    Engine,
    /// The kernel's WireGuard: one preshared key per peer, sessions unseen.
    Kernel,
}

/// What a [`Local`] is made from.
#[derive(Debug)]
pub struct LocalConfig {
    /// The WireGuard secret key.
    pub secret_key: SecretKey,
    /// Our network.
    pub network: NetworkId,
    /// What we list, promise and demand.
    pub policy: Policy,
    /// The seed of the static ML-KEM key, from disk; needed if the policy turns L3 on.
    pub kem_seed: Option<[u8; 64]>,
    /// Who does the tunnel's cryptography.
    pub plane: Plane,
    /// Whether we take stream packets without IP and UDP headers, which the kernel's WireGuard
    /// never does. Default: yes.
    pub bare_streams: bool,
    /// No record of ours had a sequence number above this.
    pub record_seq_floor: u64,
    /// A preshared key is replaced after this much time in use. Default 15 minutes.
    pub rotate_after: Duration,
}

impl LocalConfig {
    /// All defaults.
    #[must_use]
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            secret_key,
            network: NetworkId::default(),
            policy: Policy::default(),
            kem_seed: None,
            plane: Plane::default(),
            bare_streams: true,
            record_seq_floor: 0,
            rotate_after: Duration::from_secs(900),
        }
    }
}

/// Our side of every exchange.
pub struct Local {
    secret: SecretKey,
    node_id: NodeId,
    network: NetworkId,
    policy: Policy,
    suites: Suites,
    kem: Option<KemSecret>,
    plane: Plane,
    bare_streams: bool,
    rotate_after: Duration,
    record: SignedRecord,
    renew_at_secs: u64,
    /// Hash and promise of the records before, newest last.
    older: Vec<([u8; 32], Level)>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("node_id", &self.node_id)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Local {
    /// Signs the first record. Its sequence number is `max(floor + 1, Unix time)` and is to be on
    /// disk before anything is sent: see [`Local::record`].
    ///
    /// # Errors
    ///
    /// [`PolicyError`]: the policy contradicts itself.
    pub fn new(
        config: LocalConfig,
        node_id: NodeId,
        unix: UnixTime,
        random: &mut dyn Random,
    ) -> Result<Self, PolicyError> {
        let suites = config.policy.suites()?;
        // Also where the policy does not use it now: it may be turned on while the node runs.
        let kem = config.kem_seed.map(|seed| KemSecret::from_seed(&seed));
        if config.policy.static_kem && kem.is_none() {
            return Err(PolicyError::NoStaticKey);
        }
        let secs = unix.as_duration().as_secs();
        let facts = Facts {
            policy: &config.policy,
            suites,
            network: config.network,
            kem: kem.as_ref(),
            plane: config.plane,
        };
        let record = facts.sign(&config.secret_key, config.record_seq_floor, secs, random);
        Ok(Self {
            secret: config.secret_key,
            node_id,
            network: config.network,
            policy: config.policy,
            suites,
            kem,
            plane: config.plane,
            bare_streams: config.bare_streams,
            rotate_after: config.rotate_after,
            record,
            renew_at_secs: secs.saturating_add(RECORD_RENEWED_SECS),
            older: Vec::new(),
        })
    }

    /// Changes the policy and signs a new record.
    ///
    /// # Errors
    ///
    /// [`PolicyError`]; nothing has changed then.
    pub fn set_policy(
        &mut self,
        policy: Policy,
        unix: UnixTime,
        random: &mut dyn Random,
    ) -> Result<(), PolicyError> {
        let suites = policy.suites()?;
        if policy.static_kem && self.kem.is_none() {
            return Err(PolicyError::NoStaticKey);
        }
        self.policy = policy;
        self.suites = suites;
        self.sign_anew(unix, random);
        Ok(())
    }

    /// Signs a new record if half of the lifetime of the last one is over (`true`), or if the clock
    /// has been put back to before it: peers would not take it until then.
    pub fn renew(&mut self, unix: UnixTime, random: &mut dyn Random) -> bool {
        let secs = unix.as_duration().as_secs();
        let due = secs >= self.renew_at_secs || secs < self.record.record().not_before;
        if due {
            self.sign_anew(unix, random);
        }
        due
    }

    /// Signs a new record, whose number is that of the time at least: for when the clock was wrong
    /// until now, so that it may be below one that peers have seen.
    pub fn sign_anew(&mut self, unix: UnixTime, random: &mut dyn Random) {
        let secs = unix.as_duration().as_secs();
        let facts = Facts {
            policy: &self.policy,
            suites: self.suites,
            network: self.network,
            kem: self.kem.as_ref(),
            plane: self.plane,
        };
        let record = facts.sign(&self.secret, self.record.record().seq, secs, random);
        let old = core::mem::replace(&mut self.record, record);
        if self.older.len() == OLDER_MAX {
            self.older.remove(0);
        }
        self.older.push((old.hash(), old.record().min_level));
        self.renew_at_secs = secs.saturating_add(RECORD_RENEWED_SECS);
    }

    /// Our node id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Our network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The suites that we list.
    #[must_use]
    pub fn suites(&self) -> &Suites {
        &self.suites
    }

    /// Our newest record.
    #[must_use]
    pub fn record(&self) -> &SignedRecord {
        &self.record
    }

    /// Who does the tunnel's cryptography.
    #[must_use]
    pub fn plane(&self) -> Plane {
        self.plane
    }

    /// How long a preshared key is used.
    #[must_use]
    pub fn rotate_after(&self) -> Duration {
        self.rotate_after
    }

    /// The static ML-KEM key, if the policy has one.
    #[must_use]
    pub fn kem(&self) -> Option<&KemSecret> {
        self.kem.as_ref().filter(|_| self.policy.static_kem)
    }

    pub(crate) fn caps(&self) -> u8 {
        match (self.plane, self.bare_streams) {
            (Plane::Engine, true) => CAP_SESSION_GATE | CAP_BARE_STREAMS,
            (Plane::Engine, false) => CAP_SESSION_GATE,
            (Plane::Kernel, _) => 0,
        }
    }

    /// Whether a peer that names this record of ours used one that promised less than we do now.
    pub(crate) fn is_stale(&self, hash: &[u8; 32]) -> bool {
        let promised = self.record.record().min_level;
        self.older
            .iter()
            .any(|(old, level)| old == hash && *level < promised)
    }

    pub(crate) fn party(&self) -> Party<'_> {
        Party {
            secret: &self.secret,
            node_id: self.node_id,
            network: self.network,
            static_kem: self.kem(),
        }
    }
}

/// What goes into a record.
struct Facts<'a> {
    policy: &'a Policy,
    suites: Suites,
    network: NetworkId,
    kem: Option<&'a KemSecret>,
    plane: Plane,
}

impl Facts<'_> {
    fn sign(
        &self,
        secret: &SecretKey,
        seq_floor: u64,
        secs: u64,
        random: &mut dyn Random,
    ) -> SignedRecord {
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let kem = self.kem.filter(|_| self.policy.static_kem);
        let record = Record {
            network: self.network,
            seq: secs.max(seq_floor.saturating_add(1)),
            not_before: secs,
            expiry: secs.saturating_add(RECORD_LIFETIME_SECS),
            min_level: self.policy.promised(),
            caps: match self.plane {
                Plane::Engine => CAP_SESSION_GATE,
                Plane::Kernel => 0,
            },
            kem_pk_hash: kem.map(|kem| Blake2s256::digest(kem.encapsulation_key()).into()),
            suites: self.suites,
            fields: Vec::new(),
        };
        SignedRecord::sign(record, secret, &nonce)
            .expect("without endpoints it is short, and its lifetime is a day")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Random for Zeros {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    #[test]
    fn the_kernel_announces_no_bare_streams() {
        let caps = |plane, bare_streams| {
            let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped([7; 32]).to_bytes();
            let id = NodeId::from_bytes(&public).expect("a public key");
            let mut config = LocalConfig::new(SecretKey::from_bytes([7; 32]));
            config.plane = plane;
            config.bare_streams = bare_streams;
            let now = UnixTime::from_secs_nanos(1_700_000_000, 0);
            let local = Local::new(config, id, now, &mut Zeros).expect("the default");
            local.caps()
        };
        assert_eq!(caps(Plane::Kernel, true), 0);
        assert_eq!(caps(Plane::Engine, false), CAP_SESSION_GATE);
        let both = CAP_SESSION_GATE | CAP_BARE_STREAMS;
        assert_eq!(caps(Plane::Engine, true), both);
    }

    #[test]
    fn a_record_is_signed_anew_in_time_and_when_the_clock_was_put_back() {
        let secret = SecretKey::from_bytes([7; 32]);
        let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped([7; 32]).to_bytes();
        let id = NodeId::from_bytes(&public).expect("a public key");
        let at = |secs| UnixTime::from_secs_nanos(secs, 0);
        let start = 1_700_000_000;
        let config = LocalConfig::new(secret);
        let mut local = Local::new(config, id, at(start), &mut Zeros).expect("the default");
        assert!(!local.renew(at(start), &mut Zeros));
        assert!(!local.renew(at(start + RECORD_RENEWED_SECS - 1), &mut Zeros));
        assert!(local.renew(at(start + RECORD_RENEWED_SECS), &mut Zeros));
        let seq = local.record().record().seq;
        // The clock was hours ahead and is right again: nobody would take the record until then.
        assert!(local.renew(at(start + 60), &mut Zeros));
        let record = local.record().record();
        assert_eq!(record.not_before, start + 60);
        assert!(record.seq > seq, "numbers never fall");
        assert!(!local.renew(at(start + 60), &mut Zeros));
    }
}
