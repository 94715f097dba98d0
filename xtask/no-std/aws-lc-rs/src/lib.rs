//! The part of the interface of `aws-lc-rs` that layer 1 uses, without anything behind it.
//!
//! `aws-lc-rs` links `std`, for synchronisation and errors, and would hide whether anything else
//! does. This takes its place in that one check and is never run.

#![no_std]
#![allow(clippy::missing_errors_doc, clippy::missing_panics_doc)]

/// See the module of this name in `aws-lc-rs`.
pub mod error {
    /// Any failure.
    #[derive(Clone, Copy, Debug)]
    pub struct Unspecified;

    /// A key that is none.
    #[derive(Clone, Copy, Debug)]
    pub struct KeyRejected;
}

/// See the module of this name in `aws-lc-rs`.
pub mod aead {
    use crate::error::Unspecified;

    /// An algorithm.
    #[derive(Debug)]
    pub struct Algorithm;
    /// The one in use.
    pub static CHACHA20_POLY1305: Algorithm = Algorithm;

    /// Associated data.
    #[derive(Debug)]
    pub struct Aad<A>(A);

    impl<A: AsRef<[u8]>> Aad<A> {
        /// From bytes.
        pub fn from(bytes: A) -> Self {
            Self(bytes)
        }
    }

    impl Aad<[u8; 0]> {
        /// None.
        pub fn empty() -> Self {
            Self([])
        }
    }

    /// A nonce.
    #[derive(Debug)]
    pub struct Nonce;

    impl Nonce {
        /// From its bytes.
        pub fn assume_unique_for_key(_: [u8; 12]) -> Self {
            Self
        }
    }

    /// A key.
    #[derive(Debug)]
    pub struct UnboundKey;

    impl UnboundKey {
        /// From its bytes.
        pub fn new(_: &'static Algorithm, _: &[u8]) -> Result<Self, Unspecified> {
            unimplemented!()
        }
    }

    /// A key in use.
    #[derive(Debug)]
    pub struct LessSafeKey;

    impl LessSafeKey {
        /// From a key.
        pub fn new(_: UnboundKey) -> Self {
            Self
        }

        /// Seals.
        pub fn seal_in_place_scatter<A: AsRef<[u8]>>(
            &self,
            _: Nonce,
            _: Aad<A>,
            _: &mut [u8],
            _: &[u8],
            _: &mut [u8],
        ) -> Result<(), Unspecified> {
            unimplemented!()
        }

        /// Opens.
        pub fn open_in_place_separate_tag<'a, A: AsRef<[u8]>>(
            &self,
            _: Nonce,
            _: Aad<A>,
            _: &[u8],
            _: &'a mut [u8],
        ) -> Result<&'a mut [u8], Unspecified> {
            unimplemented!()
        }
    }
}

/// See the module of this name in `aws-lc-rs`.
pub mod agreement {
    use crate::error::{KeyRejected, Unspecified};

    /// An algorithm.
    #[derive(Debug)]
    pub struct Algorithm;
    /// The one in use.
    pub static X25519: Algorithm = Algorithm;

    /// A public key of ours.
    #[derive(Debug)]
    pub struct PublicKey;

    impl AsRef<[u8]> for PublicKey {
        fn as_ref(&self) -> &[u8] {
            unimplemented!()
        }
    }

    /// A public key of somebody.
    #[derive(Debug)]
    pub struct UnparsedPublicKey<B>(B);

    impl<B: AsRef<[u8]>> UnparsedPublicKey<B> {
        /// From its bytes.
        pub fn new(_: &'static Algorithm, bytes: B) -> Self {
            Self(bytes)
        }
    }

    /// A secret key.
    #[derive(Debug)]
    pub struct PrivateKey;

    impl PrivateKey {
        /// From its bytes.
        pub fn from_private_key(_: &'static Algorithm, _: &[u8]) -> Result<Self, KeyRejected> {
            unimplemented!()
        }

        /// Its public key.
        pub fn compute_public_key(&self) -> Result<PublicKey, Unspecified> {
            unimplemented!()
        }
    }

    /// The product of two keys, given to a function.
    pub fn agree<B: AsRef<[u8]>, F, R, E>(
        _: &PrivateKey,
        _: UnparsedPublicKey<B>,
        _: E,
        _: F,
    ) -> Result<R, E>
    where
        F: FnOnce(&[u8]) -> Result<R, E>,
    {
        unimplemented!()
    }
}
