//! TLS in front of a server of tests: a request and its answer at a time.
//!
//! The certificates in `tls/` are for `localhost`, signed by an authority that is gone, and good for a hundred
//! years; `other.pem` is an authority that has signed nothing.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A file of certificates: `ca.pem`, the authority of the server's, or `other.pem`.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tls")
        .join(name)
}

/// Has a server answer over TLS, too. Returns at which port.
pub fn in_front_of(server: SocketAddr) -> u16 {
    let chain = CertificateDer::pem_file_iter(file("leaf.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let near = StreamOwned::new(connection, stream);
            thread::spawn(move || forward(near, server));
        }
    });
    port
}

/// Until one of them has had enough.
fn forward(mut near: StreamOwned<ServerConnection, TcpStream>, server: SocketAddr) {
    let mut far = BufReader::new(TcpStream::connect(server).unwrap());
    let mut request = Vec::new();
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = near.read(&mut buf) {
        request.extend_from_slice(&buf[..n]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        if far.get_ref().write_all(&request).is_err() {
            return;
        }
        request.clear();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if !far.read_line(&mut line).is_ok_and(|n| n > 0) {
                return;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            let _ = near.write_all(line.as_bytes());
            if line == "\r\n" {
                break;
            }
        }
        if std::io::copy(&mut (&mut far).take(length), &mut near).is_err() {
            return;
        }
    }
}
