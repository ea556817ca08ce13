//! Whose certificates are trusted: the system's authorities, and for the registry alone those that were set
//! up for its host.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem};

use crate::error::{Error, Result};
use crate::files::small;
use crate::printable::printable_path;

/// Where podman and docker look for the authorities of a host.
const DIRECTORIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// Largest file of certificates: those of a whole system take some 200 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

pub(super) type Roots = Vec<Certificate<'static>>;

/// The authorities of the system. A system without any is told when it is asked for by https.
pub(super) fn of_system() -> Roots {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::debug!("some certificates of the system cannot be read: {error}");
    }
    let certificates = found.certs.iter();
    certificates
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect()
}

/// The authorities of a registry's host, and those of a file that the user names.
///
/// # Errors
/// When a file is there, and cannot be read or holds no certificate.
pub(super) fn of_host(host: &str, named: Option<&Path>) -> Result<Roots> {
    let mut roots = Roots::new();
    for directory in DIRECTORIES {
        let directory = PathBuf::from(directory).join(host);
        for (name, bytes) in small::read_all(&directory, ".crt", MAX_FILE_BYTES)? {
            roots.extend(read(&bytes, &directory.join(name))?);
        }
    }
    if let Some(path) = named {
        let Some(bytes) = small::read(path, MAX_FILE_BYTES)? else {
            return Err(Error::environment(
                printable_path(path),
                "there is no such file of certificates",
            ));
        };
        roots.extend(read(&bytes, path)?);
    }
    Ok(roots)
}

fn read(bytes: &[u8], path: &Path) -> Result<Roots> {
    let certificates = ureq::tls::parse_pem(bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let roots: Roots = certificates.collect();
    match roots.is_empty() {
        true => Err(Error::environment(
            printable_path(path),
            "holds no certificate in PEM",
        )),
        false => Ok(roots),
    }
}
