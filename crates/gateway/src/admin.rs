//! The admin port: `/metrics`, `/healthz`, `/readyz`. No authentication, no data, never on the AWS port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use keyring::{Keyring, KeyringError};
use volume::Volumes;

use crate::listener::RequestBody;
use crate::metrics::Metrics;

/// Whether the server can serve.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    state: AtomicU8,
    /// The first part that stopped for good.
    stopped: OnceLock<&'static str>,
    /// Whether the marks between the parts have not been kept for long.
    marks_overdue: AtomicBool,
}

/// What `/readyz` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not yet.
    Starting = 0,
    /// Requests are answered.
    Ready = 1,
    /// No new ones are taken.
    Draining = 2,
}

impl Readiness {
    pub(crate) fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Says that `part` has stopped and needs a restart. One is named; the log has all.
    pub(crate) fn part_stopped(&self, part: &'static str) {
        let _ = self.stopped.set(part);
    }

    /// Says whether the marks between the parts have failed to be kept for too long.
    pub(crate) fn marks_overdue(&self, overdue: bool) {
        self.marks_overdue.store(overdue, Ordering::Release);
    }

    fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }
}

/// What the admin port needs to answer.
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness>,
    /// Set once they are open. A keyring that cannot write its audit log uses no key, so nothing can be served.
    pub(crate) keyrings: OnceLock<Vec<Arc<Keyring>>>,
    /// Set once they are open, likewise.
    pub(crate) volumes: OnceLock<Vec<Arc<Volumes>>>,
}

/// Volumes in error that `/readyz` names.
const NAMED_MAX: usize = 10;

impl Admin {
    /// Answers one request.
    #[expect(clippy::unused_async, reason = "hyper's service wants a future")]
    pub(crate) async fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
    ) -> Response<Full<Bytes>> {
        self.answer(request.method(), request.uri().path())
    }

    /// The error of the first keyring that cannot serve.
    fn keys_healthy(&self) -> Result<(), KeyringError> {
        let keyrings = self.keyrings.get().into_iter().flatten();
        keyrings
            .into_iter()
            .try_for_each(|keyring| keyring.healthy())
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let text = |status: StatusCode, text: &'static str| {
            plain(status, "text/plain; charset=utf-8", text.into())
        };
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/metrics" => match self.rendered() {
                Ok((body, kind)) => plain(StatusCode::OK, &kind, body.into()),
                Err(error) => {
                    tracing::error!(%error, "metrics cannot be rendered");
                    text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "metrics cannot be rendered\n",
                    )
                }
            },
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.state() {
                State::Ready => match self.keys_healthy() {
                    Err(error) => {
                        tracing::warn!(%error, "not ready: no key can be used");
                        text(
                            StatusCode::SERVICE_UNAVAILABLE,
                            "no key can be used: see the log\n",
                        )
                    }
                    _ => match self.readiness.stopped.get() {
                        Some(part) => plain(
                            StatusCode::SERVICE_UNAVAILABLE,
                            "text/plain; charset=utf-8",
                            format!("{part} have stopped: see the log, and restart\n").into(),
                        ),
                        None if self.readiness.marks_overdue.load(Ordering::Acquire) => text(
                            StatusCode::SERVICE_UNAVAILABLE,
                            "the marks between the parts of the data directory cannot be kept: see the log\n",
                        ),
                        None => plain(
                            StatusCode::OK,
                            "text/plain; charset=utf-8",
                            self.ready().into(),
                        ),
                    },
                },
                State::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
                State::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /metrics, /healthz and /readyz\n",
            ),
        }
    }
}

impl Admin {
    fn rendered(&self) -> prometheus::Result<(Vec<u8>, String)> {
        if let Some(volumes) = self.volumes.get() {
            let mut by_state = BTreeMap::new();
            for (state, count) in volumes.iter().flat_map(|volumes| volumes.by_state()) {
                *by_state.entry(state).or_default() += count;
            }
            self.metrics.volumes(&by_state);
        }
        self.metrics.render()
    }

    /// Damage of one volume is that volume's: the others are served, and so is this one's name.
    fn ready(&self) -> String {
        let all = self.volumes.get().into_iter().flatten();
        let wrong: Vec<_> = all
            .flat_map(|volumes| volumes.in_error(NAMED_MAX + 1))
            .collect();
        let mut text = "ready\n".to_owned();
        if !wrong.is_empty() {
            let named: Vec<String> = wrong
                .iter()
                .take(NAMED_MAX)
                .map(|id| id.to_string())
                .collect();
            let more = if wrong.len() > NAMED_MAX {
                " and more"
            } else {
                ""
            };
            text.push_str(&format!("volumes in error: {}{more}\n", named.join(" ")));
        }
        text
    }
}

fn plain(status: StatusCode, kind: &str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        Admin {
            metrics: Arc::new(Metrics::new().unwrap()),
            readiness: Arc::default(),
            keyrings: OnceLock::new(),
            volumes: OnceLock::new(),
        }
    }

    #[test]
    fn readyz_says_ready_only_between_start_and_drain() {
        let admin = admin();
        let status = |path: &str| admin.answer(&Method::GET, path).status();
        assert_eq!(status("/readyz"), 503);
        assert_eq!(status("/healthz"), 200);
        admin.readiness.set(State::Ready);
        assert_eq!(status("/readyz"), 200);
        admin.readiness.set(State::Draining);
        assert_eq!(status("/readyz"), 503);
        assert_eq!(status("/metrics"), 200);
        assert_eq!(status("/"), 404);
        assert_eq!(admin.answer(&Method::POST, "/metrics").status(), 405);
    }

    #[tokio::test]
    async fn readyz_says_that_marks_are_overdue_for_as_long_as_they_are() {
        let admin = admin();
        admin.readiness.set(State::Ready);
        admin.readiness.marks_overdue(true);
        let answer = admin.answer(&Method::GET, "/readyz");
        assert_eq!(answer.status(), 503);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        assert!(body.unwrap().to_bytes().starts_with(b"the marks between"));
        admin.readiness.marks_overdue(false);
        assert_eq!(admin.answer(&Method::GET, "/readyz").status(), 200);
    }

    #[tokio::test]
    async fn readyz_names_a_part_that_has_stopped() {
        let admin = admin();
        admin.readiness.set(State::Ready);
        admin.readiness.part_stopped("jobs");
        let answer = admin.answer(&Method::GET, "/readyz");
        assert_eq!(answer.status(), 503);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        assert!(body.unwrap().to_bytes().starts_with(b"jobs have stopped"));
        assert_eq!(admin.answer(&Method::GET, "/healthz").status(), 200);
    }
}
