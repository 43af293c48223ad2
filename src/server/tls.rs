//! The certificate of the proxy port, replaced in place when its files change.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::tls::TlsSettings;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;
use crate::time::Timestamp;

/// The certificate in use and where it comes from.
pub(super) struct Certificates {
    files: Tls,
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// Reads the certificate and its key, or says what is wrong with them.
    pub(super) fn load(files: &Tls) -> Result<Arc<Self>, String> {
        let current = ArcSwap::new(Arc::new(read(files)?));
        Ok(Arc::new(Self { files: files.clone(), current }))
    }

    /// Reads the files again; what was in use stays so if they are not fit to be used.
    pub(super) fn reload(&self) -> Result<bool, String> {
        let read = read(&self.files)?;
        let changed = read.cert != self.current.load().cert;
        if changed {
            self.current.store(Arc::new(read));
        }
        Ok(changed)
    }

    /// Returns when the certificate ends.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        let current = self.current.load();
        let leaf = current.cert.first()?;
        let leaf: &[u8] = leaf.as_ref();
        let seconds = pingora::utils::tls::parse_x509(&leaf).validity().not_after.timestamp();
        Some(Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Certificates({})", self.files.cert.display())
    }
}

/// Returns listener settings that always offer the certificate in use, HTTP/2 preferred.
pub(super) fn settings(certificates: Arc<Certificates>) -> Result<TlsSettings, String> {
    let mut settings = TlsSettings::intermediate("", "").map_err(|error| format!("tls: {error}"))?;
    settings.set_cert_resolver(certificates);
    settings.enable_h2();
    Ok(settings)
}

fn read(files: &Tls) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| problem("tls.cert", &files.cert, &error))?;
    if chain.is_empty() {
        return Err(problem("tls.cert", &files.cert, &"holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| problem("tls.key", &files.key, &error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider);
    certified.map_err(|error| problem("tls", &files.cert, &format!("certificate and key do not fit: {error}")))
}

fn problem(what: &str, path: &Path, error: &dyn fmt::Display) -> String {
    format!("{what}: {}: {error}", path.display())
}
