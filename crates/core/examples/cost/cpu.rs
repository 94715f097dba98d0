//! Times of the parts of an exchange, and of its steps.

use crate::report::Report;
use curve25519_dalek::MontgomeryPoint;
use std::hint::black_box;
use std::time::Instant;
use wiremesh_control::exchange::{Offered, Party, Replied, offer, reply};
use wiremesh_control::kem::EK_LEN;
use wiremesh_control::message::{Hello, Offer, Reply};
use wiremesh_control::{
    KemSecret, Level, Policy, Random, Record, SignedRecord, Signer, SuiteId, encapsulate, sign,
};
use wiremesh_wire::{NetworkId, NodeId, SecretKey};

const SAMPLES: usize = 400;

/// Bytes that follow from a number.
pub struct Counted(pub u64);

impl Random for Counted {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(9);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

/// A secret key and its node id.
pub fn key(number: u32) -> (SecretKey, NodeId) {
    let mut secret = [7; 32];
    secret[8..12].copy_from_slice(&number.to_le_bytes());
    let public = MontgomeryPoint::mul_base_clamped(secret).to_bytes();
    let id = NodeId::from_bytes(&public).expect("a clamped secret has a valid public key");
    (SecretKey::from_bytes(secret), id)
}

/// The median time of one operation in microseconds.
pub fn median_us<T>(mut operation: impl FnMut() -> T) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            black_box(operation());
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&mut samples)
}

/// The median; sorts.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The single operations.
pub fn measure_parts(report: &mut Report) {
    const GROUP: &str = "parts, CPU per operation";
    let mut add = |name: &str, value: f64| report.add(GROUP, name, value, "us");
    let kem = KemSecret::from_seed(&[1; 64]);
    let (ct, _) = encapsulate(kem.encapsulation_key(), &[2; 32]).expect("a valid key");
    add(
        "ML-KEM-768 key generation",
        median_us(|| KemSecret::from_seed(&[1; 64])),
    );
    let seal = || encapsulate(kem.encapsulation_key(), &[2; 32]).expect("a valid key");
    add(
        "ML-KEM-768 encapsulation, with the check of the key",
        median_us(seal),
    );
    add(
        "ML-KEM-768 decapsulation",
        median_us(|| kem.decapsulate(&ct)),
    );
    let (secret, id) = key(1);
    let message = [3; 32];
    add(
        "XEdDSA sign",
        median_us(|| sign::sign(&secret, b"cost", &message, &[4; 32])),
    );
    let signer = Signer::new(&secret);
    add(
        "XEdDSA sign, key at hand",
        median_us(|| signer.sign(b"cost", &message, &[4; 32])),
    );
    let signature = signer.sign(b"cost", &message, &[4; 32]);
    let verify = || sign::verify(&id, b"cost", &message, &signature).expect("our own signature");
    add("XEdDSA verify", median_us(verify));
    add(
        "X25519 key generation",
        median_us(|| MontgomeryPoint::mul_base_clamped([5; 32])),
    );
    let share = MontgomeryPoint::mul_base_clamped([6; 32]);
    add("X25519 product", median_us(|| share.mul_clamped([5; 32])));
    let record = own_record(&secret, &Policy::default());
    add(
        "record, open and verify",
        median_us(|| SignedRecord::open(record.bytes(), &id)),
    );
}

fn own_record(secret: &SecretKey, policy: &Policy) -> SignedRecord {
    let record = Record {
        network: NetworkId::default(),
        seq: 1,
        not_before: 0,
        expiry: 86_400,
        min_level: Level::Classical,
        caps: 1,
        kem_pk_hash: None,
        suites: policy.suites().expect("a consistent policy"),
        fields: Vec::new(),
    };
    SignedRecord::sign(record, secret, &[0; 32]).expect("a short record")
}

/// Two parties of an exchange at one level.
pub struct Sides {
    a: (SecretKey, NodeId),
    b: (SecretKey, NodeId),
    policy: Policy,
    /// The static keys of A and B, for L3.
    kems: Option<[KemSecret; 2]>,
    suite: SuiteId,
}

impl Sides {
    pub fn new(is_static: bool) -> Self {
        let (mut a, mut b) = (key(1), key(2));
        if b.1 < a.1 {
            std::mem::swap(&mut a, &mut b);
        }
        let kems = || [1, 2].map(|byte| KemSecret::from_seed(&[byte; 64]));
        Self {
            a,
            b,
            policy: Policy {
                static_kem: is_static,
                ..Policy::default()
            },
            kems: is_static.then(kems),
            suite: match is_static {
                true => SuiteId::HYBRID_STATIC,
                false => SuiteId::HYBRID,
            },
        }
    }

    fn party(&self, at: usize) -> Party<'_> {
        let (secret, node_id) = [&self.a, &self.b][at];
        Party {
            secret,
            node_id: *node_id,
            network: NetworkId::default(),
            static_kem: self.kems.as_ref().map(|kems| &kems[at]),
        }
    }

    fn static_key(&self, at: usize) -> Option<&[u8; EK_LEN]> {
        Some(self.kems.as_ref()?[at].encapsulation_key())
    }

    fn hello(&self, at: usize) -> Hello {
        hello(self.party(at).secret, &self.policy)
    }

    pub fn offer(&self) -> (Offered, Vec<u8>) {
        let (own, peer) = (self.hello(0), &self.b.1);
        offer(
            &self.party(0),
            own,
            1,
            peer,
            self.static_key(1),
            &mut Counted(1),
        )
    }

    pub fn parse_offer(bytes: &[u8]) -> Offer {
        Offer::parse(bytes).expect("our own offer")
    }

    pub fn reply(&self, offer: &Offer, bytes: &[u8]) -> (Replied, Vec<u8>) {
        let (party, own, peer) = (self.party(1), self.hello(1), &self.a.1);
        let (ek, mut random) = (self.static_key(0), Counted(2));
        reply(&party, own, self.suite, peer, offer, bytes, ek, &mut random).expect("they fit")
    }
}

/// The four steps of an exchange at L2 and at L3, without records and sessions.
pub fn measure_exchanges(report: &mut Report) {
    const GROUP: &str = "steps of one exchange, CPU";
    for (level, is_static) in [("L2", false), ("L3", true)] {
        let sides = Sides::new(is_static);
        let (offered, offer_bytes) = sides.offer();
        let parsed = Sides::parse_offer(&offer_bytes);
        let (replied, reply_bytes) = sides.reply(&parsed, &offer_bytes);
        let reply = Reply::parse(&reply_bytes).expect("our own reply");
        let accept = || {
            let (party, peer) = (sides.party(0), &sides.b.1);
            let accepted =
                offered.accept_reply(&party, peer, &reply, &reply_bytes, &mut Counted(3));
            accepted.expect("an honest reply")
        };
        let (_, fin) = accept();
        // A record is signed once in 12 hours and sent along: its time is no part of this.
        let record_us = median_us(|| sides.hello(0));
        let offer_us = median_us(|| sides.offer()) - record_us;
        let reply_us = median_us(|| sides.reply(&parsed, &offer_bytes)) - record_us;
        let accept_us = median_us(accept);
        let accept_fin = || replied.accept_fin(&sides.a.1, &fin).expect("an honest FIN");
        let fin_us = median_us(accept_fin);
        let mut add =
            |name: &str, value, unit| report.add(GROUP, &format!("{level}: {name}"), value, unit);
        add("A makes OFFER", offer_us, "us");
        add("A checks REPLY, makes FIN", accept_us, "us");
        add("A in all", offer_us + accept_us, "us");
        add("B checks OFFER, makes REPLY", reply_us, "us");
        add("B checks FIN", fin_us, "us");
        add("B in all", reply_us + fin_us, "us");
        add("bytes of OFFER", offer_bytes.len() as f64, "B");
        add("bytes of REPLY", reply_bytes.len() as f64, "B");
    }
}

fn hello(secret: &SecretKey, policy: &Policy) -> Hello {
    let record = own_record(secret, policy);
    Hello {
        nonce: [0; 16],
        min_level: Level::Classical,
        suites: record.record().suites,
        own_seq: 1,
        peer_record: [0; 32],
        caps: 1,
        record: Some(record.bytes().to_vec()),
        proof: None,
        network: [0; 8],
    }
}
