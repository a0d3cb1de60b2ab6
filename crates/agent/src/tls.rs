//! TLS towards the engine: one CA is trusted, the one whose BLAKE3 came with the join token or the
//! invocation.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A client configuration that trusts the CA with this digest (64 hexadecimal digits) and no other;
/// without a digest it trusts nobody, and only `http` works. `ca_pem` helps when the engine does not
/// send its CA in the handshake.
pub(crate) fn client_config(ca_digest: Option<&str>, ca_pem: Option<&str>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let known = ca_pem.and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
    let verifier = PinnedCa { digest: ca_digest.map(str::to_ascii_lowercase), known, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[derive(Debug)]
struct PinnedCa {
    digest: Option<String>,
    known: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    fn is_pinned(&self, cert: &CertificateDer<'_>) -> bool {
        self.digest.as_deref().is_some_and(|digest| blake3::hash(cert).to_hex().as_str() == digest)
    }
}

impl ServerCertVerifier for PinnedCa {
    /// Any certificate under the pinned CA will do, whatever its name: the CA belongs to one engine
    /// and signs for nobody else, and an engine cannot know every name its agents reach it by.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_pinned(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let ca = intermediates.iter().chain(&self.known).find(|cert| self.is_pinned(cert));
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
