//! The CA backend that the configuration names, and the authorities beside it.

use std::sync::Arc;

use super::config::Config;
use super::data_directory::{DataDirectory, UnusableDirectory};
use super::run::StartError;
use crate::ca::{
    Authorities, Authority, BuiltinCa, CertificateAuthority, Passphrase, node_ca_key_path,
};
use crate::clock::Clock;
use crate::store::{CommitError, Key, Put, Store, StoreUnavailable, Transaction};

/// Opens the authorities and the backend; they are made only if this installation never had any. A
/// join root that is made anew would lock out every node that pinned the old one.
pub(super) async fn open(
    config: &Config,
    data: &DataDirectory,
    store: &dyn Store,
    clock: &Clock,
) -> Result<(Arc<Authorities>, Arc<dyn CertificateAuthority>), StartError> {
    let passphrase = config.passphrase_file.as_deref().map(Passphrase::from_file).transpose()?;
    let key = Key::new(["authority", "join-root"]);
    let is_known = store.get(&key).await?.is_some();
    let (directory, domain) = (data.ca(), data.trust_domain());
    if is_known && !(Authorities::exist(&directory) && node_ca_key_path(&directory).exists()) {
        return Err(gone(data));
    }
    let passphrase = passphrase.as_ref();
    let authorities = Authorities::open_or_create(&directory, domain, passphrase, clock.now())?;
    let node_ca = Authority::node_ca(&directory, domain, passphrase, clock.now())?;
    if !is_known {
        let value = authorities.join_root.key().to_string().into_bytes();
        let put = Put { key, value, expires_at: None };
        let transaction = Transaction { puts: vec![put], ..Transaction::default() };
        let failed = |error: CommitError| StoreUnavailable(error.to_string());
        store.commit(transaction).await.map_err(failed)?;
    }
    Ok((Arc::new(authorities), Arc::new(BuiltinCa::new(Arc::new(node_ca)))))
}

fn gone(data: &DataDirectory) -> StartError {
    let directory = data.ca();
    UnusableDirectory(format!(
        "{}: the authorities of this installation are gone; restore the directory",
        directory.display()
    ))
    .into()
}
