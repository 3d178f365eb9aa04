//! A whole server in this process, behind its AWS port: what its clients see, and what its audit log says of it.
#![allow(clippy::unwrap_used)]

mod disk;
mod management;
mod scopes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use root::FileProvider;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::assembly::Assembly;
use crate::client::Client;
use crate::config::Config;
use crate::credentials::RootUsers;
use crate::data_dir::{DataDir, Paths, Runtime};
use crate::door::{Door, Places};
use crate::listener::{self, Limits};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::root_key;
use disk::FailingDisk;

const ONE: &str = "123456789012";
const TWO: &str = "210987654321";
const HERE: &str = "us-east-1";
const THERE: &str = "eu-west-1";

/// A server, and where it is.
struct Server {
    address: SocketAddr,
    disk: FailingDisk,
    data_dir: DataDir,
    stop: watch::Sender<bool>,
    listening: tokio::task::JoinHandle<()>,
    assembly: Assembly,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// The text of the first element of that name.
    fn xml(&self, name: &str) -> &str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let rest = self.text.split_once(&open).map(|(_, rest)| rest);
        let found = rest.and_then(|rest| rest.split_once(&close));
        found.map_or("", |(text, _)| text)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text);
        self
    }

    /// The error code that S3 or EC2 answers.
    #[track_caller]
    fn fails(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.xml("Code")),
            (status, code),
            "{}",
            self.text
        );
    }
}

/// A folder, and servers on it one after the other.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    async fn start(&self, accounts: &[&str], regions: &[&str]) -> anyhow::Result<Server> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let config = Config {
            data_dir: self.data_dir(),
            accounts: owned(accounts),
            regions: owned(regions),
            ..Config::default()
        };
        config.check()?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let random = Arc::new(crypto::random::SystemRandom);
        let path = data_dir.paths().root_key();
        let provider = FileProvider::new(path, Arc::new(host::OsDisk), random);
        let store_key = root_key::open(&data_dir, Arc::new(provider)).await?;
        let metrics = Arc::new(Metrics::new()?);
        let disk = FailingDisk::default();
        let audit_disk = Arc::new(disk.disk.clone());
        let assembly = Assembly::open(&config, &data_dir, &store_key, &metrics, audit_disk).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let limits = Limits {
            header_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            open: None,
            clock: Arc::new(host::SystemClock::new()),
        };
        let places = Places {
            strangers_max: 100,
            known_max: 100,
            pace: Pace {
                window: Duration::from_secs(30),
                bytes_per_second_min: 1024,
            },
        };
        let door = Door::new(places, Box::new(|_, _| {}));
        let aws = Arc::clone(&assembly.aws);
        let serving = listener::serve(listener, door, limits, stopped, move |request, peer| {
            Arc::clone(&aws).handle(request, peer)
        });
        Ok(Server {
            address,
            disk,
            data_dir,
            stop,
            listening: tokio::spawn(async move {
                let _ = serving.await;
            }),
            assembly,
        })
    }
}

impl Server {
    async fn stop(self) {
        let Self {
            stop,
            listening,
            assembly,
            ..
        } = self;
        stop.send(true).unwrap();
        listening.await.unwrap();
        assembly.objects.close().await;
    }

    /// From now on the audit log takes no record.
    fn kill_audit_log(&self) {
        self.disk.fails.store(true, Ordering::SeqCst);
    }

    /// A request of an account's root user, signed for a region.
    async fn call(
        &self,
        (account, region): (&str, &str),
        service: &str,
        (method, target): (Method, &str),
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let users = RootUsers::load(&self.data_dir.paths().credentials()).unwrap();
        let user = users.into_user(account.parse().unwrap()).unwrap();
        let runtime = Runtime {
            aws: format!("http://{}", self.address),
            admin: String::new(),
            nbd_unix: "/".into(),
            nbd_tcp: None,
            region: region.to_owned(),
            pid: 0,
        };
        let client = Client::new(runtime, user);
        let answer = client
            .send(&method, target, service, headers, body.into())
            .await;
        let (head, body) = answer.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn s3(
        &self,
        place: (&str, &str),
        method: Method,
        target: &str,
        body: &'static str,
    ) -> Answer {
        self.call(place, "s3", (method, target), &[], body).await
    }

    async fn kms(&self, place: (&str, &str), operation: &str, body: serde_json::Value) -> Answer {
        let target = format!("TrentService.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let body = body.to_string();
        self.call(place, "kms", (Method::POST, "/"), &headers, body)
            .await
    }

    async fn ec2(&self, place: (&str, &str), form: &str) -> Answer {
        let headers = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )];
        let body = format!("Version=2016-11-15&{form}");
        self.call(place, "ec2", (Method::POST, "/"), &headers, body)
            .await
    }

    /// Makes a key; its ARN.
    async fn create_key(&self, place: (&str, &str)) -> String {
        let made = self
            .kms(place, "CreateKey", serde_json::json!({}))
            .await
            .ok();
        made.json()["KeyMetadata"]["Arn"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The records of the audit log.
    fn records(&self) -> Vec<serde_json::Value> {
        records(self.data_dir.path())
    }
}

/// The records of the audit log in a data directory.
fn records(data_dir: &Path) -> Vec<serde_json::Value> {
    let mut segments: Vec<_> = std::fs::read_dir(Paths(data_dir).audit())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    segments.sort();
    let text = segments
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    let text = text.collect::<String>();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
