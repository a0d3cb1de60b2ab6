//! The engine's own certificate authority, so that agents can trust it by the digest in their join
//! token alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::keys::write_private;

/// The CA and what is served.
pub(crate) struct Authority {
    /// BLAKE3 of the CA certificate (DER), hexadecimal.
    pub digest: String,
    /// The CA certificate.
    pub ca_pem: String,
    /// For the listener.
    pub server: Arc<rustls::ServerConfig>,
}

impl Authority {
    /// The folder's CA, made when there is none; issues a fresh server certificate for `names`.
    pub(crate) fn open(dir: &Path, names: Vec<String>) -> anyhow::Result<Self> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        if !cert_path.exists() {
            let key = KeyPair::generate().context("making the CA's key")?;
            let cert = ca_params()?.self_signed(&key).context("signing the CA")?;
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            write_private(&cert_path, cert.pem().as_bytes())?;
        }
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        let (ca_pem, ca_key) = (read(&cert_path)?, read(&key_path)?);
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).context("the CA certificate")?;
        let ca_key = KeyPair::from_pem(&ca_key).context("the CA's key")?;
        let issuer = Issuer::new(ca_params()?, ca_key);
        let key = KeyPair::generate().context("making the server's key")?;
        let cert =
            CertificateParams::new(names).and_then(|p| p.signed_by(&key, &issuer)).context("server certificate")?;
        let chain = vec![cert.der().clone(), ca_der.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self { digest: blake3::hash(&ca_der).to_hex().to_string(), ca_pem, server: Arc::new(server) })
    }
}

/// The CA's own fields; the same at each start, so that its certificate need not be parsed again.
fn ca_params() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "Skein engine CA");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}
