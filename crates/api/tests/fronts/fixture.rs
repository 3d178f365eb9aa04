//! A keyring, volumes on it, and requests to both.
use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use api::Answer;
use bytes::Bytes;
use crypto::random::SystemRandom;
use host::{Clock, clock::ManualClock};
use iam::{Authorizer, Principal, RequestContext};
use keyring::{AuditLog, AuditOptions, Keyring, NoObserver, Options};
use serde_json::Value;
use volume::{EncryptionPolicy, Volumes};

pub(crate) const ACCOUNT: &str = "123456789012";

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    reopening: Reopening,
    authorizer: Arc<Authorizer>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) volumes: Option<Arc<Volumes>>,
    /// Who calls; the owner if not changed.
    pub(crate) account: &'static str,
}

/// What volumes are opened on.
struct Reopening {
    catalogue: Arc<dyn catalogue::Catalogue>,
    store_key: root::StoreKey,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
}

/// A store of its own, in memory: what exists, and the key that seals it.
async fn store() -> (Arc<dyn catalogue::Catalogue>, root::StoreKey) {
    let (disk, random) = (
        Arc::new(host::disk::sim::SimDisk::new(1)),
        Arc::new(SystemRandom),
    );
    let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
    let options = root::Options {
        disk,
        dir: "/".into(),
        provider: Arc::new(provider),
        random,
        may_make: true,
    };
    let key = root::StoreKey::open(options).await.unwrap();
    let id = catalogue::StoreId(*key.store().as_bytes());
    (Arc::new(catalogue::MemoryCatalogue::new(id)), key)
}

impl Fixture {
    /// A keyring alone.
    pub(crate) async fn keyring() -> Self {
        Self::open(None).await
    }

    /// A keyring and volumes.
    pub(crate) async fn volumes() -> Self {
        Self::open(Some(EncryptionPolicy::default())).await
    }

    /// A keyring and volumes, none of which may be plaintext.
    pub(crate) async fn sealed_volumes() -> Self {
        Self::open(Some(EncryptionPolicy {
            required: true,
            ..EncryptionPolicy::default()
        }))
        .await
    }

    async fn open(volumes: Option<EncryptionPolicy>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (catalogue, store_key) = store().await;
        let authorizer = Arc::new(Authorizer::new(ACCOUNT.parse().unwrap()));
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
        let audit = AuditOptions::new(dir.path().join("audit"), Arc::clone(&clock));
        let audit = AuditLog::open(audit).unwrap();
        let keyring = Keyring::open(Options {
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            audit: audit.clone(),
            clock: Arc::clone(&clock),
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&authorizer),
            region: "us-east-1".parse().unwrap(),
            observer: Arc::new(NoObserver),
        })
        .await
        .unwrap();
        let mut fixture = Self {
            dir,
            authorizer,
            keyring,
            volumes: None,
            account: ACCOUNT,
            reopening: Reopening {
                catalogue,
                store_key,
                audit,
                clock,
            },
        };
        if let Some(encryption) = volumes {
            fixture.open_volumes(encryption).await;
        }
        fixture
    }

    /// Opens the volumes, again if they were open.
    pub(crate) async fn open_volumes(&mut self, encryption: EncryptionPolicy) {
        self.volumes = None;
        let Reopening {
            catalogue,
            store_key,
            audit,
            clock,
        } = &self.reopening;
        let options = volume::Options {
            disk: Arc::new(host::OsDisk),
            dir: self.dir.path().join("volumes"),
            keyring: Arc::clone(&self.keyring),
            audit: audit.clone(),
            encryption,
            catalogue: Arc::clone(catalogue),
            store_key: store_key.clone(),
            clock: Arc::clone(clock),
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&self.authorizer),
            region: "us-east-1".parse().unwrap(),
            boot: None,
            volumes_max: 100,
        };
        self.volumes = Some(Volumes::open(options).await.unwrap());
    }

    /// The audit records of an operation: each one's outcome.
    pub(crate) fn audited(&self, operation: &str) -> Vec<String> {
        let segments = std::fs::read_dir(self.dir.path().join("audit")).unwrap();
        let text = segments.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
        text.flat_map(|text| {
            let lines = text.lines().map(|line| line.parse::<Value>().unwrap());
            lines.collect::<Vec<_>>()
        })
        .filter(|record| record["operation"] == operation)
        .map(|record| record["outcome"].as_str().unwrap().to_owned())
        .collect()
    }

    fn context(&self) -> Arc<RequestContext> {
        let principal = Principal::root(self.account.parse().unwrap());
        Arc::new(RequestContext::new(principal, "request-1"))
    }

    /// A KMS request as it came.
    pub(crate) async fn kms_raw(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        let head = http::Request::post("/")
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1");
        self.kms_request(head, body).await
    }

    /// A KMS request with a head of its own.
    pub(crate) async fn kms_request(
        &self,
        head: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let (head, ()) = head.body(()).unwrap().into_parts();
        let answer = api::kms::handle(&self.keyring, &self.context(), &head, body.into()).await;
        assert_eq!(
            answer.response.headers()["content-type"],
            "application/x-amz-json-1.1"
        );
        assert_eq!(answer.response.headers()["x-amzn-requestid"], "request-1");
        answer
    }

    /// A KMS request that succeeds.
    pub(crate) async fn kms(&self, operation: &'static str, body: Value) -> Value {
        let (status, answer) = self.kms_answer(operation, body.to_string()).await;
        assert_eq!(status, 200, "{operation} {body}: {answer}");
        answer
    }

    /// A KMS request that fails: code and message.
    pub(crate) async fn kms_error(
        &self,
        operation: &'static str,
        body: impl ToString,
    ) -> (String, String) {
        let (status, answer) = self.kms_answer(operation, body.to_string()).await;
        assert_eq!(status, 400, "{operation} {}: {answer}", body.to_string());
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (text("__type"), text("message"))
    }

    async fn kms_answer(&self, operation: &'static str, body: String) -> (u16, Value) {
        let answer = self
            .kms_raw(&format!("TrentService.{operation}"), body)
            .await;
        assert_eq!(answer.operation, operation);
        let body = serde_json::from_slice(answer.response.body()).unwrap();
        (answer.response.status().as_u16(), body)
    }

    /// An EC2 request: status and XML.
    pub(crate) async fn ec2(&self, form: &str) -> (u16, String) {
        let (head, ()) = http::Request::post("/")
            .header("host", "127.0.0.1:9000")
            .body(())
            .unwrap()
            .into_parts();
        let volumes = self.volumes.as_ref().unwrap();
        let body = Bytes::from(format!("Version=2016-11-15&{form}"));
        let regions = ["us-east-1", "eu-west-1"].map(|name| name.parse().unwrap());
        let context = self.context();
        let answer =
            api::ec2::handle(volumes, &self.authorizer, &regions, &context, &head, body).await;
        let text = String::from_utf8(answer.response.body().to_vec()).unwrap();
        assert_eq!(
            answer.response.headers()["content-type"],
            "text/xml;charset=UTF-8"
        );
        (answer.response.status().as_u16(), text)
    }

    /// An EC2 request that succeeds.
    pub(crate) async fn ec2_ok(&self, form: &str) -> String {
        let (status, xml) = self.ec2(form).await;
        assert_eq!(status, 200, "{form}: {xml}");
        assert!(xml.contains("<requestId>request-1</requestId>"));
        xml
    }

    /// An EC2 request that fails: its code.
    pub(crate) async fn ec2_error(&self, form: &str) -> String {
        let (status, xml) = self.ec2(form).await;
        assert!(status >= 400, "{form}: {xml}");
        assert!(xml.contains("<Response><Errors><Error><Code>"), "{xml}");
        text(&xml, "Code").to_owned()
    }
}

/// The text of the first element of this name.
pub(crate) fn text<'a>(xml: &'a str, name: &str) -> &'a str {
    texts(xml, name)
        .first()
        .copied()
        .unwrap_or_else(|| panic!("no {name} in {xml}"))
}

/// The texts of all elements of this name.
pub(crate) fn texts<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .map(|rest| rest.split(&close).next().unwrap())
        .collect()
}
