//! KMS over HTTP whose audit records are made, chained and forgotten: what the gateway could reach if durability were free.
//!
//! `kms_forgotten ADDRESS FOLDER ACCESS_KEY SECRET_KEY [durable]`: the same verifier, front and keyring as the gateway's,
//! without its metrics and its limits, over a store that is made in the folder, which must be there and empty. With
//! `durable` the records are kept: what is between that and the gateway is the gateway's own.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use benches::key_store::{ACCOUNT, Audit, Failure, KeyStore, REGION};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use iam::RequestContext;
use iam::identity::{Credential, FixedCredentials, Principal, SecretAccessKey};
use iam::sigv4::{Body, Options, Verifier};
use keyring::Keyring;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Server {
    verifier: Verifier,
    keyring: Arc<Keyring>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (audit, arguments) = match arguments.split_last() {
        Some((last, rest)) if last == "durable" => (Audit::Durable, rest),
        _ => (Audit::Forgotten, arguments.as_slice()),
    };
    let [address, folder, access_key, secret_key] = arguments else {
        return Err("kms_forgotten ADDRESS FOLDER ACCESS_KEY SECRET_KEY [durable]".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = KeyStore::make(folder.as_ref()).await?;
        let credential = Credential {
            principal: Principal::root(ACCOUNT.parse()?),
            secret: SecretAccessKey::new(secret_key)?,
        };
        let known = FixedCredentials::one(access_key.parse()?, credential);
        let server = Server {
            verifier: Verifier::new(Options::new(REGION.parse()?), Arc::new(known)),
            keyring: store.open(audit).await?,
        };
        serve(address, Arc::new(server)).await
    })
}

async fn serve(address: &str, server: Arc<Server>) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            // A connection that breaks is the client's affair.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.try_answer(request).await {
            Ok(response) => response.map(Full::new),
            Err(error) => {
                let mut response = Response::new(Full::from(error.to_string()));
                *response.status_mut() = hyper::StatusCode::FORBIDDEN;
                response
            }
        }
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Response<Bytes>, Failure> {
        let (head, body) = request.into_parts();
        let now = SystemTime::now();
        let pending = self.verifier.begin(&head, now)?;
        let body = body.collect().await?.to_bytes();
        let verified = pending.finish(Body::Whole(&body))?;
        let mut context = RequestContext::new(verified.principal, "benchmark");
        context.access_key = Some(verified.access_key);
        context.time = Some(now);
        let answer = api::kms::handle(&self.keyring, &Arc::new(context), &head, body).await;
        Ok(answer.response)
    }
}
