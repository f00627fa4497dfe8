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
use super::reload::Reloader;
use crate::audit::{Audit, Room};
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
    /// Says whether the policy files are in force.
    pub(super) reloader: Arc<Reloader>,
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
    let not_ready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"));
    if let Err(error) = diagnostics.store.get(&Key::new(["ready"])).await {
        return not_ready(error.to_string());
    }
    if diagnostics.audit.room() == Room::Gone {
        return not_ready("the store's disk is full".to_owned());
    }
    let joins = &diagnostics.reloader.joins;
    let (now, guard) = (joins.clock.now(), &joins.time_guard);
    if guard.see(now) {
        return not_ready(format!("the clock says {now} and has said {}", guard.latest()));
    }
    if let Some(seconds_ahead) = guard.apart() {
        return not_ready(format!("the clock is {seconds_ahead} s ahead of AWS's"));
    }
    // Joins go on under the set before, so broken files are no reason to take the server out.
    let broken = diagnostics.reloader.error();
    let broken = broken.map(|error| format!("policy files not in force: {error}\n"));
    let warning = diagnostics.warning.unwrap_or_default();
    (StatusCode::OK, format!("ready\n{warning}{}", broken.unwrap_or_default()))
}

async fn metrics(State(diagnostics): State<Arc<Diagnostics>>) -> impl IntoResponse {
    diagnostics.metrics.store.read(&diagnostics.audit);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], diagnostics.metrics.to_text())
}
