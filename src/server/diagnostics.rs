//! `/healthz`, `/readyz` and `/metrics`: plain HTTP on loopback, nothing that is secret.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::audit::Audit;
use crate::store::{Key, Store};

/// What the pages are made of.
pub(super) struct Diagnostics {
    /// The counters.
    pub(super) metrics: Arc<Metrics>,
    /// Must answer for the server to be ready.
    pub(super) store: Arc<dyn Store>,
    /// Tells how much was only counted.
    pub(super) audit: Arc<Audit>,
    /// What a reader of `/readyz` must know of this server; nothing on an honest one.
    pub(super) warning: Option<&'static str>,
}

/// Serves until `stop` says so.
pub(super) async fn serve(
    listener: TcpListener,
    diagnostics: Arc<Diagnostics>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(diagnostics);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _closed = stop.wait_for(|stop| *stop).await;
        })
        .await
}

async fn ready(State(diagnostics): State<Arc<Diagnostics>>) -> impl IntoResponse {
    match diagnostics.store.get(&Key::new(["ready"])).await {
        Ok(_) => (StatusCode::OK, format!("ready\n{}", diagnostics.warning.unwrap_or_default())),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
    }
}

async fn metrics(State(diagnostics): State<Arc<Diagnostics>>) -> impl IntoResponse {
    diagnostics.metrics.audit_counted.set(diagnostics.audit.counted());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], diagnostics.metrics.to_text())
}
