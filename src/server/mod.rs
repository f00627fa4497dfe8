//! The server: configuration, listeners, composition. Wiring, no decisions; the only module that
//! knows which backends exist.

mod audit_key;
mod authority;
mod baseline;
mod cloud;
mod config;
mod connections;
mod data_directory;
mod diagnostics;
mod exchange;
mod explanation;
mod grpc;
mod handshake;
mod hello;
mod listener;
mod local;
mod metrics;
mod node_record;
mod policies;
mod policy_history;
mod proxy_protocol;
mod publisher;
mod reload;
mod revocation;
pub mod policy_directory;
mod run;
mod running;
mod shared;
mod space;
mod store_metrics;
mod start_error;
mod status;
mod tasks;
mod tls;
mod tokens;

pub use audit_key::{UnusableAuditKey, audit_public_key_path};
pub use authority::Backend;
pub use baseline::AnswerSizes;
pub use cloud::Cloud;
pub use config::{Config, ConfigFile, EXAMPLE, InvalidConfig, Overrides};
pub use data_directory::{
    DataDirectory, UnusableDirectory, check_data_directory, socket_path, store_path,
};
pub use explanation::Explainer;
pub use hello::{HELLO_BYTES_MAX, read_hello};
pub use local::{BundleFormat, Command, LocalError, LockWanted, RecordFilter, Reply, TokenWanted};
pub use policy_history::{AlteredSet, Load, PolicyHistory};
pub use proxy_protocol::read_proxy_header;
pub use reload::read_certificates;
pub use run::{start, start_baseline};
pub use running::{Ready, Running};
pub use space::{SpaceLimits, free_bytes};
pub use start_error::StartError;
pub use tls::UnusableTls;
