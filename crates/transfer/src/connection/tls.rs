//! TLS 1.3 with a certificate on either side.
//!
//! The peer's name comes from its certificate, which a CA of ours signed. No message can change it.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client, rustls,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
    server,
};

use super::{Error, GREETING_MAX, Result};

/// Bytes that one read takes from the socket. TLS itself asks for a few KiB at a time.
const READ_BYTES: usize = 128 << 10;
/// Bytes that TLS encrypts before it writes them.
const WRITE_BYTES: usize = 256 << 10;

/// Certificate and key of this node, and the CAs whose certificates it believes.
#[derive(Debug)]
pub struct Identity {
    /// Certificate of this node, then those of the CAs between it and a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the certificate.
    pub key: PrivateKeyDer<'static>,
    /// CAs that this node believes.
    pub roots: RootCertStore,
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Tls { text: error.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Identity {
    /// Makes what accepts connections. A peer without a certificate of our CAs is refused.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] if key and certificate don't fit, or there is no CA.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let roots = Arc::new(self.roots.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(refused)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(refused)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Makes what connects to peers.
    ///
    /// # Errors
    ///
    /// [`Error::Tls`] if key and certificate don't fit.
    pub fn connector(&self) -> Result<TlsConnector> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(refused)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Shakes hands as the side that was connected to.
///
/// # Errors
///
/// [`Error::Tls`] if the peer is refused, [`Error::Late`] if it takes longer than a greeting may.
pub async fn accept<S>(acceptor: &TlsAcceptor, stream: S) -> Result<server::TlsStream<BufReader<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    let shaken = timeout(GREETING_MAX, acceptor.accept(stream)).await;
    let mut stream = shaken.map_err(|_| Error::Late)?.map_err(refused)?;
    stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
    Ok(stream)
}

/// Shakes hands as the side that connects. The peer's certificate must have this name.
///
/// # Errors
///
/// As [`accept`].
pub async fn connect<S>(
    connector: &TlsConnector,
    name: &str,
    stream: S,
) -> Result<client::TlsStream<BufReader<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).map_err(refused)?;
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    let shaken = timeout(GREETING_MAX, connector.connect(name, stream)).await;
    let mut stream = shaken.map_err(|_| Error::Late)?.map_err(refused)?;
    stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
    Ok(stream)
}

/// DNS names of the peer's certificate.
///
/// # Errors
///
/// [`Error::Tls`] without a readable certificate.
pub fn peer_names(session: &rustls::CommonState) -> Result<Vec<String>> {
    let certificate = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or_else(|| refused("the peer has no certificate"))?;
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(refused)?;
    Ok(certificate.valid_dns_names().map(str::to_owned).collect())
}
