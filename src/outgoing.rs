//! What Doorward's own HTTP clients have in common.
//!
//! No redirects, no proxy from the environment, and TLS that is always verified: against the
//! authorities of one PEM file, or against those the system trusts. Deadlines and pools are the caller's.

use std::io;
use std::path::Path;

use reqwest::{Certificate, Client, ClientBuilder, redirect};
use rustls::crypto::CryptoProvider;

/// Why there is no client: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The process has no TLS provider.
    #[error("no TLS provider is installed in this process")]
    NoTlsProvider,
    /// The file with authorities cannot be read.
    #[error("ca cannot be read")]
    UnreadableCa(#[source] io::Error),
    /// The file holds no certificate.
    #[error("ca holds no PEM certificate")]
    NoCertificate,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Returns what makes a client that trusts the authorities in the PEM file `ca`; without one, those of
/// the system, and none when `tls` is false.
pub fn builder(ca: Option<&Path>, tls: bool) -> Result<ClientBuilder, ClientError> {
    // reqwest panics without one; `main` installs it first of all.
    if CryptoProvider::get_default().is_none() {
        return Err(ClientError::NoTlsProvider);
    }
    let builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")));
    Ok(match ca {
        Some(path) => builder.tls_certs_only(authorities(path)?),
        // Lets a container without system certificates ask a neighbour in clear.
        None if !tls => builder.tls_certs_only([]),
        None => builder,
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(ClientError::UnreadableCa)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(ClientError::NoCertificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_makes_no_client() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let missing = builder(Some(Path::new("/nonexistent/ca.pem")), true);
        assert!(matches!(missing, Err(ClientError::UnreadableCa(_))), "{missing:?}");
        let text = builder(Some(Path::new("/dev/null")), true);
        assert!(matches!(text, Err(ClientError::NoCertificate)), "{text:?}");
        for tls in [true, false] {
            assert!(builder(None, tls).unwrap().build().is_ok(), "{tls}");
        }
    }
}
