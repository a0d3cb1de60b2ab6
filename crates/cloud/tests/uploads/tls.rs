//! A service behind a certificate of one's own authority.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use skein_cloud::transport::{Destination, GoogleLogin, Settings};
use skein_cloud::{Endpoint, Retry, Secret};
use skein_image::Format;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::suite::{limits, upload};
use super::support::image::{Image, MIB};

/// An authority's certificate (PEM), and what a server of it needs for `localhost`.
fn authority() -> (String, rustls::ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![server.der().clone()];
    let private = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    (certificate.pem(), rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).unwrap())
}

#[tokio::test]
async fn a_certificate_of_ones_own_authority_is_trusted_when_it_is_given_and_only_then() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (pem, config) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serving = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            client.read_buf(&mut Vec::new()).await.unwrap();
            client
                .write_all(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot today")
                .await
                .unwrap();
            client.shutdown().await.ok();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 1, MIB, MIB, 1, Format::GceTar);
    let settings = |ca_pem| Settings::Gcs {
        endpoint: Endpoint { url: format!("https://localhost:{port}"), ca_pem },
        bucket: "b".to_owned(),
        login: GoogleLogin::Token(Secret::new("t")),
        limits: limits(),
        retry: Retry { tries_max: 2, first_wait_ms: 1, ..Retry::default() },
    };
    let trusted =
        upload(&settings(Some(pem)), &image, &Destination::new("x"), &mut None).await.unwrap_err().to_string();
    assert!(trusted.contains("403") && trusted.contains("not today"), "the service's own words: {trusted}");
    let foreign = upload(&settings(None), &image, &Destination::new("x"), &mut None).await.unwrap_err().to_string();
    assert!(foreign.contains("certificate"), "{foreign}");
    serving.abort();
}
