//! What certificates are trusted.

#[cfg(feature = "tls")]
use crate::error::{Error, Result};

/// Certificates to trust beside the system's, in PEM.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "read by TLS only"))]
    pub(crate) ca_pem: Option<Vec<u8>>,
}

#[cfg(feature = "tls")]
impl Tls {
    /// The configuration of rustls, with ring, whatever the process has installed as its default.
    pub(crate) fn rustls(&self) -> Result<rustls::ClientConfig> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;

        let mut roots = rustls::RootCertStore::empty();
        // A system without certificates can still speak http://, so that is no error here.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_deref().unwrap_or(&[])) {
            let certificate = certificate
                .map_err(|error| Error::invalid(format!("the CA certificate: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| Error::invalid(format!("the CA certificate: {error}")))?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid(format!("TLS: {error}")))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}
