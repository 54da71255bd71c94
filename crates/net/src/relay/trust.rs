//! How peers know a relay: by its key alone, the id that stands beside its address. No certificate is made, and
//! none runs out (raw public keys, RFC 7250).

use crate::{SecretKey, peer_id};
use hedge_model::PeerId;
use iroh::tls::CaTlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime, alg_id,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::{CertifiedKey, public_key_to_spki};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig,
    SignatureScheme, version,
};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// What comes before the 32 bytes of an ed25519 key in PKCS #8 (RFC 8410, section 7).
const PKCS8_BEFORE_KEY: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The server's side of TLS with this key.
pub(super) fn server_tls(key: &SecretKey) -> Result<ServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let pkcs8 = [&PKCS8_BEFORE_KEY[..], &key.to_bytes()].concat();
    let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let signing = provider.key_provider.load_private_key(pkcs8)?;
    let public = CertificateDer::from(spki(peer_id(key)).to_vec());
    let certified = Arc::new(CertifiedKey::new(vec![public], signing));
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(config)
}

fn spki(peer: PeerId) -> SubjectPublicKeyInfoDer<'static> {
    public_key_to_spki(&alg_id::ED25519, peer.0)
}

/// The relays that a peer trusts; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trusted(Arc<RwLock<HashSet<PeerId>>>);

impl Trusted {
    /// From now on these alone.
    pub fn set(&self, relays: impl Iterator<Item = PeerId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = relays.collect();
    }

    /// What the transport checks relays with.
    pub fn tls(&self) -> CaTlsConfig {
        let trusted = self.clone();
        CaTlsConfig::custom_server_cert_verifier(Arc::new(move |provider| {
            let trusted = trusted.clone();
            Ok(Arc::new(Verifier { trusted, provider }))
        }))
    }

    fn is_trusted(&self, key: &CertificateDer<'_>) -> bool {
        let trusted = self.0.read().unwrap_or_else(PoisonError::into_inner);
        trusted.iter().any(|peer| spki(*peer)[..] == key[..])
    }
}

#[derive(Debug)]
struct Verifier {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if others.is_empty() && self.trusted.is_trusted(key) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
