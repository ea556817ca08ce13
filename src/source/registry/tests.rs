//! The client beside a registry of which anything may go wrong.

#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use modeloci_test_support::noise;
use modeloci_test_support::registry::{Access, Fault, Registry};
use modeloci_test_support::tls;

use super::*;

/// "user:hunter-1" and "user:hunter-2".
const ONE: &str = "dXNlcjpodW50ZXItMQ==";
const TWO: &str = "dXNlcjpodW50ZXItMg==";
const TIMEOUT: Duration = Duration::from_millis(900);

/// Credentials that change.
#[derive(Clone, Default)]
struct Login(Arc<Mutex<Option<Credential>>>);

impl Login {
    fn password(&self, password: &str) {
        let user = "user".to_string();
        let password = Secret::new(password);
        *self.0.lock().unwrap() = Some(Credential::Password { user, password });
    }
}

impl Outside for Login {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(
            host.parse().map_err(io::Error::other)?,
            port,
        )])
    }

    fn credentials(&self, _: &str, _: &str) -> Result<Found> {
        let credential = self.0.lock().unwrap().clone();
        let place = "auth.json".to_string();
        Ok(Found { credential, place })
    }
}

fn source_as(registry: &Registry, tag: &str, login: &Login) -> RegistrySource {
    let reference = Reference::parse(&format!("{}/team/m:{tag}", registry.host())).unwrap();
    let options = Options {
        timeout: TIMEOUT,
        ..Options::default()
    };
    RegistrySource::asking(Asked::this(login.clone()), reference, &options).unwrap()
}

fn source(registry: &Registry) -> RegistrySource {
    source_as(registry, "1", &Login::default())
}

/// A registry with one blob, and what reads it.
fn with_blob(size: usize) -> (Registry, RegistrySource, Vec<u8>, Arc<dyn ReadAt>) {
    let registry = Registry::start();
    let data = noise(7, size);
    let digest = registry.add_blob(data.clone()).parse().unwrap();
    let source = source(&registry);
    let blob = source.blob(&digest, Some(size as u64)).unwrap().unwrap();
    (registry, source, data, blob)
}

fn read(blob: &Arc<dyn ReadAt>, offset: usize, length: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0xaa; length];
    blob.read_exact_at(&mut buf, offset as u64).map(|()| buf)
}

#[test]
fn ranges_are_exact_and_nothing_more_is_moved() {
    let (registry, _source, data, blob) = with_blob(3 << 20);
    for (offset, length) in [(0, 1), (1 << 20, 4096), ((3 << 20) - 5, 5), (77, 100_000)] {
        registry.seen();
        let before = registry.sent();
        assert!(read(&blob, offset, length).unwrap() == data[offset..offset + length]);
        assert_eq!(registry.sent() - before, length as u64);
        let seen = registry.seen();
        assert_eq!(seen.len(), 1);
        let range = format!("bytes={offset}-{}", offset + length - 1);
        assert_eq!(seen[0].range.as_deref(), Some(range.as_str()));
    }
    assert_eq!(
        read(&blob, 3 << 20, 1).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn what_is_read_in_order_is_asked_for_in_few_pieces() {
    let (registry, _source, data, blob) = with_blob(40 << 20);
    let pieces = |length: usize| (0..data.len()).step_by(length);
    for offset in pieces(512 << 10) {
        let length = (data.len() - offset).min(512 << 10);
        assert!(read(&blob, offset, length).unwrap() == data[offset..offset + length]);
    }
    assert!(registry.seen().len() <= 10);
    assert_eq!(registry.sent(), data.len() as u64, "each byte once");
    // By several threads, nearly in order.
    let next = Mutex::new(pieces(100_000));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(offset) = next.lock().unwrap().next() else {
                        return;
                    };
                    let length = (data.len() - offset).min(100_000);
                    assert!(read(&blob, offset, length).unwrap() == data[offset..offset + length]);
                }
            });
        }
    });
    // Who comes late asks for himself.
    assert!(registry.seen().len() < 420 / 2);
    assert!(registry.sent() < 3 * data.len() as u64);
}

#[test]
fn w6_every_fault_is_overcome_or_an_error_in_time() {
    let (registry, _source, data, blob) = with_blob(2 << 20);
    let want = &data[1000..301_000];
    for fault in [
        Fault::Cut(0),
        Fault::Cut(1000),
        Fault::Stall(0),
        Fault::Stall(70_000),
        Fault::Unavailable,
        Fault::TooMany(0),
        Fault::OtherRange,
        Fault::OtherTotal,
        Fault::Nothing,
        Fault::Whole,
    ] {
        registry.fail(&[fault]);
        assert!(read(&blob, 1000, 300_000).unwrap() == want, "{fault:?}");
        // And in the middle of what is read in order.
        registry.fail(&[fault; 2]);
        for offset in (0..data.len()).step_by(128 << 10) {
            let found = read(&blob, offset, 128 << 10).unwrap();
            assert!(
                found == data[offset..offset + (128 << 10)],
                "{fault:?} at {offset}"
            );
        }
    }
    for fault in [
        Fault::Cut(0),
        Fault::Stall(10),
        Fault::Slow,
        Fault::Unavailable,
        Fault::TooMany(3600),
        Fault::OtherRange,
        Fault::OtherTotal,
        Fault::Nothing,
        Fault::Circle,
    ] {
        registry.always_fail(Some(fault));
        let start = Instant::now();
        let error = read(&blob, 1000, 30_000)
            .map(|read| read.len())
            .unwrap_err();
        let took = start.elapsed();
        assert!(took < TIMEOUT * 2, "{fault:?}: {took:?}");
        assert_eq!(error.kind(), ErrorKind::Environment, "{fault:?}: {error}");
        registry.always_fail(None);
        assert!(
            read(&blob, 1000, 300_000).unwrap() == want,
            "after {fault:?}"
        );
    }
}

#[test]
fn w6_a_registry_without_ranges_is_read_from_the_front_alone() {
    let (registry, _source, data, blob) = with_blob(12 << 20);
    registry.always_fail(Some(Fault::Whole));
    assert!(read(&blob, 100_000, 1000).unwrap() == data[100_000..101_000]);
    let error = read(&blob, 11 << 20, 1000).unwrap_err().to_string();
    assert!(error.contains("answers no ranges"), "{error}");
    let before = registry.sent();
    for offset in (0..data.len()).step_by(1 << 20) {
        let found = read(&blob, offset, 1 << 20);
        match found {
            Ok(found) => assert!(found == data[offset..offset + (1 << 20)]),
            Err(error) => assert!(error.to_string().contains("no ranges"), "{error}"),
        }
    }
    assert!(registry.sent() - before < 6 * data.len() as u64);
}

#[test]
fn w6_a_registry_may_go_and_come_back() {
    let (registry, _source, data, blob) = with_blob(1 << 20);
    assert!(read(&blob, 0, 1000).unwrap() == data[..1000]);
    registry.go();
    let start = Instant::now();
    let error = read(&blob, 0, 1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(start.elapsed() < TIMEOUT * 2, "{error}");
    registry.come_back();
    assert!(read(&blob, 0, 1000).unwrap() == data[..1000]);
    // Also while somebody waits for it.
    registry.go();
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&blob, 0, 1000));
        thread::sleep(TIMEOUT / 4);
        registry.come_back();
        assert!(reader.join().unwrap().unwrap() == data[..1000]);
    });
}

#[test]
fn a_registry_that_was_never_there_is_told_at_once() {
    let registry = Registry::start();
    let source = source(&registry);
    registry.go();
    let start = Instant::now();
    let error = source.root(1 << 20).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(start.elapsed() < TIMEOUT / 2);
}

#[test]
fn w3_tokens_are_renewed_and_credentials_read_again() {
    let (registry, _source, data, _blob) = with_blob(1 << 20);
    let login = Login::default();
    let source = source_as(&registry, "1", &login);
    let digest = Digest::sha256(&data);
    let blob = source.blob(&digest, Some(1 << 20)).unwrap().unwrap();
    let good = |when: &str| assert!(read(&blob, 5, 1000).unwrap() == data[5..1005], "{when}");
    let refused = |when: &str| {
        let error = read(&blob, 5, 1000).unwrap_err().to_string();
        assert!(error.contains("auth.json"), "{when}: {error}");
        for secret in ["hunter", ONE, TWO, "token-"] {
            assert!(!error.contains(secret), "{error}");
        }
    };
    for wrap in [Access::Basic as fn(String) -> Access, |auth| {
        Access::Bearer(Some(auth))
    }] {
        *login.0.lock().unwrap() = None;
        registry.require(wrap(ONE.into()));
        refused("nobody is logged in");
        login.password("hunter-2");
        refused("as somebody else");
        login.password("hunter-1");
        good("the password");
        registry.fail(&[Fault::Unauthorized]);
        good("refused in the middle");
        registry.expire();
        good("the token has expired");
        registry.expire();
        registry.require(wrap(TWO.into()));
        refused("the password was changed");
        login.password("hunter-2");
        good("here, too");
    }
    // Before it expires, and by the token of an identity.
    registry.seen();
    *login.0.lock().unwrap() = Some(Credential::Identity(Secret::new("refresh")));
    registry.require(Access::Bearer(Some("refresh".into())));
    registry.token_seconds(0);
    registry.expire();
    good("refreshed");
    good("once more");
    let seen = registry.seen();
    let posts = seen.iter().filter(|seen| seen.method == "POST");
    assert!(posts.count() >= 2);
    registry.require(Access::Bearer(None));
    *login.0.lock().unwrap() = None;
    good("everybody gets a token");
}

#[test]
fn w2_no_other_host_is_shown_what_the_registry_is() {
    let (registry, _source, data, _blob) = with_blob(1 << 20);
    let login = Login::default();
    login.password("hunter-1");
    registry.redirect();
    let source = source_as(&registry, "1", &login);
    let blob = source
        .blob(&Digest::sha256(&data), Some(1 << 20))
        .unwrap()
        .unwrap();
    for access in [Access::Basic(ONE.into()), Access::Bearer(Some(ONE.into()))] {
        registry.require(access);
        for _ in 0..3 {
            assert!(read(&blob, 70, 1000).unwrap() == data[70..1070]);
        }
        let seen = registry.seen();
        let at = |server| seen.iter().filter(move |seen| seen.server == server);
        assert!(at("storage").count() >= 3);
        assert!(at("storage").all(|seen| seen.authorization.is_none()));
        assert!(at("registry").count() <= 2, "the address is remembered");
        registry.expire();
    }
    assert!(
        read(&blob, 70, 1000).unwrap() == data[70..1070],
        "a new address"
    );
}

#[test]
fn w8_a_registry_that_proves_nothing_is_not_read() {
    let registry = Registry::start();
    let data = noise(7, 1 << 20);
    let digest: Digest = registry.add_blob(data.clone()).parse().unwrap();
    let port = tls::in_front_of(registry.address());
    let read_as = |host: &str, authority: &str| {
        let reference = Reference::parse(&format!("{host}:{port}/team/m:1")).unwrap();
        let options = Options {
            cacert: Some(tls::file(authority)),
            timeout: TIMEOUT,
            ..Options::default()
        };
        let source = RegistrySource::new(reference, &options).unwrap();
        let blob = source.blob(&digest, Some(1 << 20)).unwrap().unwrap();
        read(&blob, 1000, 100_000)
    };
    assert!(read_as("localhost", "ca.pem").unwrap() == data[1000..101_000]);
    for (host, authority, why) in [
        ("localhost", "other.pem", "--cacert"),
        ("127.0.0.1", "ca.pem", "not valid for name"),
    ] {
        registry.seen();
        let start = Instant::now();
        let error = read_as(host, authority).map(|read| read.len()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(start.elapsed() < TIMEOUT, "it is not tried again");
        assert!(registry.seen().is_empty());
    }
    // Nor does it lead to one that proves nothing.
    registry.redirect();
    let error = read_as("localhost", "ca.pem")
        .map(|read| read.len())
        .unwrap_err();
    assert!(error.to_string().contains("is not https"), "{error}");
    let seen = registry.seen();
    assert!(
        seen.iter().all(|seen| seen.server == "registry"),
        "{seen:?}"
    );
    let key = Options {
        cacert: Some(tls::file("key.pem")),
        ..Options::default()
    };
    let reference = Reference::parse("localhost/m").unwrap();
    let error = RegistrySource::new(reference, &key).err().unwrap();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

fn manifest(layer: &[u8]) -> Vec<u8> {
    let digest = Digest::sha256(layer);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{digest}","size":1}},"layers":[]}}"#,
        media_type::IMAGE_MANIFEST,
        media_type::EMPTY
    )
    .into_bytes()
}

#[test]
fn w7_a_tag_is_looked_up_once_and_its_manifest_is_what_it_says() {
    let registry = Registry::start();
    let (one, two) = (manifest(b"1"), manifest(b"2"));
    registry.add_manifest("1", media_type::IMAGE_MANIFEST, one.clone());
    let source = source(&registry);
    assert_eq!(
        source.root(1 << 20).unwrap(),
        Some(Root::Manifest(one.clone()))
    );
    registry.add_manifest("1", media_type::IMAGE_MANIFEST, two.clone());
    source.known().root = None;
    assert_eq!(
        source.root(1 << 20).unwrap(),
        Some(Root::Manifest(one.clone()))
    );
    let moved = source_as(&registry, "1", &Login::default());
    assert_eq!(
        moved.root(1 << 20).unwrap(),
        Some(Root::Manifest(two.clone()))
    );

    let error = |tag: &str, limit: u64| {
        let source = source_as(&registry, tag, &Login::default());
        source.root(limit).unwrap_err()
    };
    let missing = error("2", 1 << 20);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("no such tag"), "{missing}");
    let large = error("1", 10);
    assert_eq!(large.kind(), ErrorKind::Malformed);
    registry.state_wrong_digests(true);
    assert_eq!(error("1", 1 << 20).kind(), ErrorKind::Corrupt);
    registry.state_wrong_digests(false);
    registry.truncate_manifests(true);
    assert_eq!(error("1", 1 << 20).kind(), ErrorKind::Environment);
}

#[test]
fn what_an_index_lists_is_asked_for_where_manifests_are() {
    let registry = Registry::start();
    let manifest = manifest(b"1");
    let digest = Digest::sha256(&manifest);
    registry.add_manifest("other", media_type::IMAGE_MANIFEST, manifest.clone());
    let (size, image) = (manifest.len(), media_type::IMAGE_MANIFEST);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{image}","digest":"{digest}","size":{size}}}]}}"#
    );
    registry.add_manifest("1", media_type::IMAGE_INDEX, index.clone().into_bytes());
    let source = source(&registry);
    assert_eq!(
        source.root(1 << 20).unwrap(),
        Some(Root::Index(index.into_bytes()))
    );
    let listed = source.blob(&digest, Some(size as u64)).unwrap().unwrap();
    assert_eq!(read(&listed, 0, size).unwrap(), manifest);
    assert_eq!(
        source
            .blob(&Digest::sha256(b"missing"), None)
            .unwrap()
            .map(|b| b.len()),
        None
    );
    let blob = registry.add_blob(vec![1; 77]).parse().unwrap();
    assert_eq!(source.blob(&blob, None).unwrap().unwrap().len(), 77);
}
