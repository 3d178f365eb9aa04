//! What the commands speak to a running server with: a small HTTP/1.1 client that signs with SigV4.
//!
//! It does what the AWS CLI would do, with the credentials of the data directory, so the commands have
//! no powers of their own and leave the same audit records.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use iam::SecretAccessKey;
use iam::sigv4::signing_key::derive;
use iam::uri::encode;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::credentials::{RootCredentials, RootUsers};
use crate::data_dir::{Paths, Runtime};

/// An answer longer than this is not one of ours.
const ANSWER_LEN_MAX: usize = 64 << 20;
/// Long enough for a key whose audit record waits for a slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A signed connection to the server that has a data directory.
#[derive(Debug)]
pub(crate) struct Client {
    runtime: Runtime,
    credentials: RootCredentials,
}

impl Client {
    /// Reads where the server listens and the root user's access key from `data_dir`.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = data_dir.canonicalize().with_context(|| {
            format!(
                "no data directory {}: start `sealgate serve`, or name one with --data-dir",
                data_dir.display()
            )
        })?;
        Ok(Self {
            runtime: Runtime::read(&data_dir)?,
            credentials: RootUsers::load(&Paths(&data_dir).credentials())?.into_default(),
        })
    }

    /// Of a server in this process.
    #[cfg(test)]
    pub(crate) fn new(runtime: Runtime, credentials: RootCredentials) -> Self {
        Self {
            runtime,
            credentials,
        }
    }

    /// Where the server listens.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The NBD socket, for messages.
    pub(crate) fn nbd_socket(&self) -> PathBuf {
        self.runtime.nbd_unix.clone()
    }

    /// One KMS operation.
    pub(crate) async fn kms(&self, operation: &str, input: &Value) -> anyhow::Result<Value> {
        self.json("kms", &format!("TrentService.{operation}"), input)
            .await
    }

    /// One operation of Sealgate's own service.
    pub(crate) async fn sealgate(&self, operation: &str, input: &Value) -> anyhow::Result<Value> {
        self.json("sealgate", &format!("Sealgate.{operation}"), input)
            .await
    }

    async fn json(&self, service: &str, target: &str, input: &Value) -> anyhow::Result<Value> {
        let body = serde_json::to_vec(input)?;
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target),
        ];
        let (status, body) = self.signed(service, &headers, body.into()).await?;
        let answer: Value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body)?
        };
        if status.is_success() {
            return Ok(answer);
        }
        let part = |name: &str| {
            answer
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        bail!("{}: {}", part("__type"), part("message"))
    }

    /// One EC2 operation; the XML of its answer.
    pub(crate) async fn ec2(
        &self,
        action: &str,
        parameters: &[(String, String)],
    ) -> anyhow::Result<String> {
        let mut body = format!("Action={action}&Version=2016-11-15");
        for (name, value) in parameters {
            body.push_str(&format!("&{}={}", encode(name), encode(value)));
        }
        let headers = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )];
        let (status, body) = self.signed("ec2", &headers, body.into()).await?;
        let body = String::from_utf8(body.to_vec())?;
        if status.is_success() {
            return Ok(body);
        }
        let part = |tag: &str| {
            body.split_once(&format!("<{tag}>"))
                .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
                .map(|(text, _)| {
                    quick_xml::escape::unescape(text)
                        .map_or_else(|_| text.to_owned(), |t| t.into_owned())
                })
                .unwrap_or_default()
        };
        bail!("{}: {}", part("Code"), part("Message"))
    }

    /// GET on the admin port; status and text.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let request = Request::get(path).body(Full::default())?;
        let answer = send(&self.runtime.admin, request).await?;
        Ok((answer.status(), String::from_utf8(answer.body().to_vec())?))
    }

    /// Signs and sends a POST to `/`.
    async fn signed(
        &self,
        service: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self
            .send(&Method::POST, "/", service, headers, body)
            .await?;
        Ok((answer.status(), answer.into_body()))
    }

    /// Signs and sends a request for a path and at most one parameter, of characters that need no escape. AWS, "Signature
    /// Version 4 signing process".
    pub(crate) async fn send(
        &self,
        method: &Method,
        target: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        let uri: Uri = self.runtime.aws.parse()?;
        let host = uri
            .authority()
            .ok_or_else(|| anyhow!("no host in {uri}"))?
            .to_string();
        let now = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let payload = hex::encode(digest::digest(&digest::SHA256, &body));
        let mut signed: Vec<(&str, &str)> = headers.to_vec();
        signed.extend([
            ("host", host.as_str()),
            ("x-amz-content-sha256", &payload),
            ("x-amz-date", &now),
        ]);
        signed.sort_unstable();
        let names = signed
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(";");
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = match query {
            "" => "",
            query if query.contains('=') => "",
            _ => "=",
        };
        let canonical = format!("{method}\n{path}\n{query}{value}\n{lines}\n{names}\n{payload}");
        let (date, region) = (&now[..8], &self.runtime.region);
        let scope = format!("{date}/{region}/{service}/aws4_request");
        let hashed = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}");
        let secret = std::str::from_utf8(self.credentials.secret_access_key.expose())?;
        let key = derive(
            &SecretAccessKey::new(secret)?,
            date,
            region.as_str(),
            service,
        );
        let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
        let id = &self.credentials.access_key_id;
        let mut request = Request::builder().method(method).uri(target).header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"),
        );
        for (name, value) in signed {
            request = request.header(name, value);
        }
        send(&self.runtime.aws, request.body(Full::new(body))?).await
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
async fn send(base: &str, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
    let uri: Uri = base.parse()?;
    let authority = uri
        .authority()
        .ok_or_else(|| anyhow!("no host in {base}"))?
        .clone();
    if !request.headers().contains_key(http::header::HOST) {
        request
            .headers_mut()
            .insert(http::header::HOST, authority.as_str().parse()?);
    }
    let exchange = async {
        let stream = TcpStream::connect(authority.as_str())
            .await
            .with_context(|| {
                format!("no server answers at {base}: is `sealgate serve` running?")
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response: Response<_> = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LEN_MAX)
            .collect()
            .await
            .map_err(|e| anyhow!("the answer could not be read: {e}"))?
            .to_bytes();
        driver.abort();
        Ok(Response::from_parts(head, body))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, exchange)
        .await
        .map_err(|_| {
            anyhow!(
                "{base} did not answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            )
        })?
}
