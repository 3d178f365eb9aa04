//! Clients that fall silent, each service and each moment of a request: they are given up in time, everything they held
//! comes back, and others are served meanwhile.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use hyper_util::server::graceful::GracefulShutdown;
use iam::SecretAccessKey;
use iam::sigv4::signing_key::derive;
use root::FileProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::admin::{Admin, Readiness, State};
use crate::assembly::Assembly;
use crate::config::Config;
use crate::credentials::{RootCredentials, RootUsers};
use crate::data_dir::{DataDir, Paths};
use crate::door::{Door, Places};
use crate::listener::{self, Limits};
use crate::pace::Pace;
use crate::root_key;
use crate::serve;

const MIB: usize = 1 << 20;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(30);
/// A client that is silent from somewhere on is gone after a whole body's window, a whole answer's, and one more head's.
const BOUND: Duration = Duration::from_secs(100);
/// What a connection takes in without the other side reading it.
const PIPE_LEN: usize = 64 << 10;

/// The process, but for its sockets.
struct Server {
    dir: PathBuf,
    parts: Assembly,
    admin: Arc<Admin>,
    aws_door: Arc<Door>,
    admin_door: Arc<Door>,
    limits: Limits,
    graceful: GracefulShutdown,
    credentials: RootCredentials,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Aws,
    Admin,
}

impl Server {
    async fn start(parent: &Path, strangers_max: usize, known_max: usize, memory_mib: u64) -> Self {
        let dir = parent.join("data");
        let mut config = Config {
            data_dir: dir.clone(),
            ..Config::default()
        };
        config.aws.body_memory_mib = memory_mib;
        let data_dir = DataDir::open(&dir).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let provider = FileProvider::new(
            Paths(&dir).root_key(),
            Arc::new(host::OsDisk),
            Arc::new(crypto::random::SystemRandom),
        );
        let store_key = root_key::open(&data_dir, Arc::new(provider)).await.unwrap();
        let parts = Assembly::open(
            &config,
            &data_dir,
            &store_key,
            &metrics,
            Arc::new(host::OsDisk),
        )
        .await
        .unwrap();
        let readiness = Readiness::default();
        readiness.set(State::Ready);
        let keyrings = OnceLock::new();
        let _ = keyrings.set(parts.keyrings.clone());
        let pace = Pace {
            window: WINDOW,
            bytes_per_second_min: 1024,
        };
        let door = |strangers_max, known_max| {
            let places = Places {
                strangers_max,
                known_max,
                pace,
            };
            Door::new(places, Box::new(|_, _| {}))
        };
        Self {
            credentials: RootUsers::load(&Paths(&dir).credentials())
                .unwrap()
                .into_default(),
            dir,
            parts,
            admin: Arc::new(Admin {
                metrics,
                readiness: Arc::new(readiness),
                keyrings,
                volumes: OnceLock::new(),
            }),
            aws_door: door(strangers_max, known_max),
            admin_door: door(64, 0),
            limits: Limits {
                header_timeout: HEADER_TIMEOUT,
                drain: Duration::ZERO,
                open: None,
                clock: Arc::new(host::SystemClock::new()),
            },
            graceful: GracefulShutdown::new(),
        }
    }

    /// A client's end of a new connection, and the server's task.
    fn connect(&self, port: Port) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
        let address = "127.0.0.1:9".parse().unwrap();
        let task = match port {
            Port::Aws => {
                let aws = Arc::clone(&self.parts.aws);
                tokio::spawn(listener::connection(
                    theirs,
                    self.aws_door.enter(address),
                    &self.limits,
                    &self.graceful,
                    move |request, guest| Arc::clone(&aws).handle(request, guest),
                ))
            }
            Port::Admin => {
                let admin = Arc::clone(&self.admin);
                tokio::spawn(listener::connection(
                    theirs,
                    self.admin_door.enter(address),
                    &self.limits,
                    &self.graceful,
                    move |request, _| Arc::clone(&admin).handle(request),
                ))
            }
        };
        (ours, task)
    }

    /// A head with a signature over it.
    fn head(&self, request: &Asked) -> String {
        let now = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let mut signed = request.headers.clone();
        signed.extend([
            ("host", "h".to_owned()),
            ("x-amz-content-sha256", request.payload.clone()),
            ("x-amz-date", now.clone()),
        ]);
        signed.sort_unstable();
        let names: Vec<_> = signed.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let (method, path, payload) = (request.method, request.path, &request.payload);
        let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{payload}");
        let hashed = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let scope = format!("{}/us-east-1/{}/aws4_request", &now[..8], request.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}");
        let secret = std::str::from_utf8(self.credentials.secret_access_key.expose()).unwrap();
        let secret = SecretAccessKey::new(secret).unwrap();
        let key = derive(&secret, &now[..8], "us-east-1", request.service);
        let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
        let id = &self.credentials.access_key_id;
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!(
            "{method} {path} HTTP/1.1\r\n{lines}content-length: {}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n",
            request.body.len(),
        )
    }

    /// Sends a whole request on a connection of its own; the whole answer.
    async fn exchange(&self, request: &Asked) -> String {
        let (stream, _task) = self.connect(request.port);
        let (mut read, mut write) = tokio::io::split(stream);
        let bytes = [self.head(request).as_bytes(), &request.body].concat();
        let sent = async move {
            // An answer that comes before the end of the body is an answer all the same.
            let _ = write.write_all(&bytes).await;
            write
        };
        let read = async { read_answer(&mut read).await };
        let (_write, answer) = tokio::join!(sent, read);
        answer
    }

    async fn served(&self, request: &Asked) {
        let answer = self.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
    }

    /// Bytes of disk that data files take, and how many there are.
    fn data_files(&self) -> (u64, usize) {
        let (mut bytes, mut files) = (0, 0);
        for folder in std::fs::read_dir(Paths(&self.dir).objects().join("data")).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                // It may go meanwhile.
                if let Ok(file) = file.unwrap().metadata() {
                    bytes += file.blocks() * 512;
                    files += 1;
                }
            }
        }
        (bytes, files)
    }

    /// Waits until there are so many data files: those of given-up uploads go in the background.
    async fn until_there_are(&self, files: usize) {
        while self.data_files().1 != files {
            self.parts.objects.settle().await;
        }
    }

    async fn stop(self) {
        let Self { parts, admin, .. } = self;
        drop(admin);
        parts.known.keep(&parts.audit, true).await.unwrap();
        parts.objects.close().await;
    }
}

/// Reads one answer: its head, and as many bytes as that says.
async fn read_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let mut piece = vec![0; PIPE_LEN];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, len)| len.parse().unwrap());
            if answer.len() - head.len() - 4 >= len {
                return text.into_owned();
            }
            let _ = body;
        }
        let read = stream.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            return String::from_utf8_lossy(&answer).into_owned();
        }
        answer.extend_from_slice(&piece[..read]);
    }
}

/// A request.
#[derive(Debug, Clone)]
struct Asked {
    port: Port,
    service: &'static str,
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    payload: String,
    body: Vec<u8>,
}

fn put(path: &'static str, len: usize) -> Asked {
    Asked {
        port: Port::Aws,
        service: "s3",
        method: "PUT",
        path,
        headers: Vec::new(),
        payload: "UNSIGNED-PAYLOAD".to_owned(),
        body: vec![0x61; len],
    }
}

fn put_chunked() -> Asked {
    const CHUNK: usize = 64 << 10;
    let mut body = Vec::new();
    for _ in 0..3 * MIB / CHUNK {
        body.extend_from_slice(format!("{CHUNK:x}\r\n").as_bytes());
        body.extend_from_slice(&[0x62; CHUNK]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    Asked {
        headers: vec![
            ("content-encoding", "aws-chunked".to_owned()),
            ("x-amz-decoded-content-length", (3 * MIB).to_string()),
        ],
        payload: "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned(),
        body,
        ..put("/buc/chunked", 0)
    }
}

fn get(path: &'static str) -> Asked {
    Asked {
        method: "GET",
        ..put(path, 0)
    }
}

fn json(service: &'static str, target: &str, body: &str) -> Asked {
    Asked {
        service,
        method: "POST",
        headers: vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", target.to_owned()),
        ],
        payload: hex::encode(digest::digest(&digest::SHA256, body.as_bytes())),
        body: body.as_bytes().to_vec(),
        ..put("/", 0)
    }
}

fn query() -> Asked {
    let body = b"Action=DescribeVolumes&Version=2016-11-15".to_vec();
    Asked {
        service: "ec2",
        method: "POST",
        headers: vec![(
            "content-type",
            "application/x-www-form-urlencoded".to_owned(),
        )],
        payload: hex::encode(digest::digest(&digest::SHA256, &body)),
        body,
        ..put("/", 0)
    }
}

fn admin(path: &'static str) -> Asked {
    Asked {
        port: Port::Admin,
        ..get(path)
    }
}

fn requests() -> Vec<Asked> {
    vec![
        put("/buc/put", 3 * MIB),
        put_chunked(),
        get("/buc/big"),
        json("kms", "TrentService.ListKeys", "{ }"),
        query(),
        admin("/metrics"),
    ]
}

/// When a client falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BeforeHead,
    MidHead,
    BeforeBody,
    MidBody,
    BeforeAnswer,
    MidAnswer,
    AfterAnswer,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::BeforeHead,
        Self::MidHead,
        Self::BeforeBody,
        Self::MidBody,
        Self::BeforeAnswer,
        Self::MidAnswer,
        Self::AfterAnswer,
    ];
}

/// A client that is silent now.
struct Silent {
    what: String,
    phase: Phase,
    service: &'static str,
    stream: DuplexStream,
    task: JoinHandle<()>,
}

/// Sends as much of a request as `phase` says, and reads as much of the answer.
async fn fall_silent(server: &Server, request: &Asked, phase: Phase) -> Option<Silent> {
    if request.body.is_empty() && matches!(phase, Phase::BeforeBody | Phase::MidBody) {
        return None;
    }
    let (mut stream, task) = server.connect(request.port);
    let head = server.head(request);
    let half = head.len() / 2;
    match phase {
        Phase::BeforeHead => {}
        Phase::MidHead => stream.write_all(&head.as_bytes()[..half]).await.unwrap(),
        _ => stream.write_all(head.as_bytes()).await.unwrap(),
    }
    match phase {
        Phase::MidBody => {
            // In the middle of a chunk, and of a batch.
            let part = (request.body.len() / 2 + 1000).min(request.body.len() - 1);
            stream.write_all(&request.body[..part]).await.unwrap();
        }
        Phase::BeforeAnswer | Phase::MidAnswer | Phase::AfterAnswer => {
            stream.write_all(&request.body).await.unwrap();
        }
        _ => {}
    }
    match phase {
        Phase::MidAnswer => {
            let mut some = [0; 100];
            stream.read_exact(&mut some).await.unwrap();
        }
        Phase::AfterAnswer => {
            let answer = read_answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        _ => {}
    }
    Some(Silent {
        what: format!("{} {} at {phase:?}", request.service, request.path),
        phase,
        service: request.service,
        stream,
        task,
    })
}

/// What a client asks that is not silent.
async fn others_are_served(server: &Server) {
    server.served(&put("/buc/other", 2 * MIB)).await;
    server.served(&get("/buc/other")).await;
    server.served(&put("/buc/small", 100)).await;
    server.served(&get("/buc/small")).await;
    server
        .served(&json("kms", "TrentService.ListKeys", "{}"))
        .await;
    server.served(&query()).await;
    server.served(&admin("/readyz")).await;
}

async fn prepared(server: &Server) {
    server.served(&put("/buc", 0)).await;
    server.served(&put("/buc/big", 8 * MIB)).await;
    others_are_served(server).await;
    server.parts.objects.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_anywhere_is_given_up_and_gives_everything_back() {
    let parent = tempfile::tempdir().unwrap();
    let server = Server::start(parent.path(), 1024, 1024, 512).await;
    prepared(&server).await;
    let (free, (_, files)) = (server.parts.memory.free(), server.data_files());

    let mut silent = Vec::new();
    for request in requests() {
        for phase in Phase::ALL {
            silent.extend(fall_silent(&server, &request, phase).await);
        }
    }
    assert!(silent.len() >= 30);
    others_are_served(&server).await;

    for mut client in silent {
        let ended = tokio::time::timeout(BOUND, client.task).await;
        ended
            .unwrap_or_else(|_| panic!("{} is not given up", client.what))
            .unwrap();
        if client.service == "s3" && matches!(client.phase, Phase::BeforeBody | Phase::MidBody) {
            let answer = read_answer(&mut client.stream).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            assert!(answer.contains("<Code>RequestTimeout</Code>"), "{answer}");
        }
    }
    others_are_served(&server).await;
    assert_eq!(server.parts.memory.free(), free);
    // Two more objects than before were put whole, by clients that did not read the answer or said nothing after it.
    server.until_there_are(files + 2).await;
    // Those that were answered leave when their client has.
    while server.aws_door.len() + server.admin_door.len() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn uploads_that_fall_silent_hold_as_much_disk_as_they_have_sent_and_not_what_they_announced()
{
    let parent = tempfile::tempdir().unwrap();
    let server = Server::start(parent.path(), 64, 64, 512).await;
    prepared(&server).await;
    let (before, files) = server.data_files();
    let announced = put("/buc/huge", 200 * MIB);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (mut stream, task) = server.connect(Port::Aws);
        stream
            .write_all(server.head(&announced).as_bytes())
            .await
            .unwrap();
        stream.write_all(&announced.body[..3 * MIB]).await.unwrap();
        streams.push((stream, task));
    }
    let (during, _) = server.data_files();
    assert!(during - before <= 4 * 8 * MIB as u64, "{during} - {before}");
    for (_stream, task) in streams {
        task.await.unwrap();
    }
    server.until_there_are(files).await;
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn as_many_silent_uploads_as_there_are_places_shut_nobody_out() {
    let parent = tempfile::tempdir().unwrap();
    // The silent ones hold all places, and memory of which too little is left for another upload.
    let server = Server::start(parent.path(), 8, 8, 64).await;
    prepared(&server).await;
    let relief = tokio::spawn(serve::relieve(
        Arc::clone(&server.parts.memory),
        Arc::clone(&server.aws_door),
    ));
    let free = server.parts.memory.free();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.extend(fall_silent(&server, &requests()[0], Phase::MidBody).await);
    }
    // A lost packet's worth: from then on they may have to go.
    tokio::time::sleep(Duration::from_secs(2)).await;
    others_are_served(&server).await;
    for client in silent {
        client.task.await.unwrap();
    }
    others_are_served(&server).await;
    assert_eq!(server.parts.memory.free(), free);
    relief.abort();
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_signs_nothing_shuts_out_neither_clients_nor_readiness() {
    let parent = tempfile::tempdir().unwrap();
    let server = Server::start(parent.path(), 8, 8, 512).await;
    prepared(&server).await;
    let mut crowd = Vec::new();
    for n in 0..500 {
        let port = if n % 2 == 0 { Port::Aws } else { Port::Admin };
        let (mut stream, task) = server.connect(port);
        if n % 4 < 2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        }
        crowd.push((stream, task));
        if n % 50 == 0 {
            others_are_served(&server).await;
        }
    }
    others_are_served(&server).await;
    assert!(server.aws_door.len() <= 8 && server.admin_door.len() <= 64);
    for (_stream, task) in crowd {
        task.await.unwrap();
    }
    server.stop().await;
}
