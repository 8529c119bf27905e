//! TLS with certificates on both sides, and Unix sockets.

use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio_rustls::rustls::{RootCertStore, pki_types::PrivateKeyDer};

use super::{
    tls::{Identity, accept, connect, peer_names},
    *,
};

/// A CA, and what it issues.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a CA");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a valid CA");
        Self { issuer: Issuer::new(params, key), roots }
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("issues");
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            roots: self.roots.clone(),
        }
    }
}

#[tokio::test]
async fn both_sides_know_each_other_by_certificate() {
    let ca = Ca::new();
    let (source, target) = (ca.issue("a.nodes"), ca.issue("b.nodes"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a peer");
        let stream = accept(&target.acceptor().expect("valid"), stream).await.expect("shakes");
        let names = peer_names(stream.get_ref().1).expect("a name");
        (names, Connection::open(stream, hello()).await.expect("greets"))
    });
    let stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let connector = source.connector().expect("valid");
    let stream = connect(&connector, "b.nodes", stream).await.expect("shakes");
    assert_eq!(peer_names(stream.get_ref().1), Ok(vec!["b.nodes".to_owned()]));
    let source = Connection::open(stream, hello()).await.expect("greets");
    let (names, mut target) = accepting.await.expect("no panic");
    assert_eq!(names, ["a.nodes"]);
    for _ in 0..5 {
        source.sender().send(Lane::Bulk, DeviceNumber(1), data(1 << 20)).await.expect("sends");
    }
    for _ in 0..5 {
        assert_eq!(target.next().await.expect("it came").message, data(1 << 20));
    }
    let (closed, end) = tokio::join!(source.close(), target.next());
    assert_eq!((closed, end.map(drop)), (Ok(()), Err(Error::Closed)));
}

/// Both sides' results of a handshake and a greeting.
async fn shake(source: &Identity, name: &str, target: &Identity) -> (Result<()>, Result<()>) {
    let (a, b) = tokio::io::duplex(64 << 10);
    let (acceptor, connector) = (target.acceptor().expect("ok"), source.connector().expect("ok"));
    tokio::join!(
        async {
            let stream = connect(&connector, name, a).await?;
            Connection::open(stream, hello()).await.map(drop)
        },
        async {
            let stream = accept(&acceptor, b).await?;
            Connection::open(stream, hello()).await.map(drop)
        }
    )
}

#[tokio::test]
async fn strangers_are_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (ours, theirs) = (ca.issue("a.nodes"), other.issue("a.nodes"));
    assert_eq!(shake(&ours, "a.nodes", &ours).await, (Ok(()), Ok(())));
    let (_, accepted) = shake(&theirs, "a.nodes", &ours).await;
    assert!(matches!(accepted, Err(Error::Tls { .. })), "another CA: {accepted:?}");
    let trusting = Identity { roots: ca.roots.clone(), ..other.issue("a.nodes") };
    let (_, accepted) = shake(&trusting, "a.nodes", &ours).await;
    assert!(matches!(accepted, Err(Error::Tls { .. })), "a foreign client: {accepted:?}");
    let (connected, _) = shake(&ours, "c.nodes", &ours).await;
    assert!(matches!(connected, Err(Error::Tls { .. })), "another name: {connected:?}");
}

#[tokio::test]
async fn a_unix_socket_carries_a_connection() {
    let (a, b) = tokio::net::UnixStream::pair().expect("a pair");
    let (a, b) = tokio::join!(Connection::open(a, hello()), Connection::open(b, hello()));
    let (a, mut b) = (a.expect("greets"), b.expect("greets"));
    a.sender().send(Lane::Dirty, DeviceNumber(1), data(1 << 20)).await.expect("sends");
    assert_eq!(b.next().await.expect("it came").message, data(1 << 20));
}
