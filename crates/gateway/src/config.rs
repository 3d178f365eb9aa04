//! Configuration: file, environment and arguments become one [`Config`].
//!
//! Precedence: argument, then environment (`SEALGATE_*`), then file, then default. Only this crate
//! reads any of them; every other crate takes a plain `Options`. A key that nobody knows is an
//! error that names the nearest known one, because a misspelt security setting that is silently
//! ignored is worse than a server that does not start.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scopes::Scopes;

/// Every setting, with its default. Field names are the keys of `sealgate.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where everything is kept; created with mode 0700.
    pub(crate) data_dir: PathBuf,
    /// The AWS accounts this server serves: twelve digits each.
    pub(crate) accounts: Vec<String>,
    /// The AWS regions it serves, each with every account.
    pub(crate) regions: Vec<String>,
    /// Whether the AWS and admin endpoints may listen beyond loopback, where others on the network read what passes.
    pub(crate) allow_plain_http: bool,
    /// The root key.
    pub(crate) root_key: RootKey,
    /// The endpoint for every AWS service.
    pub(crate) aws: Aws,
    /// The block server.
    pub(crate) nbd: Nbd,
    /// Metrics and health.
    pub(crate) admin: Admin,
    /// The object side.
    pub(crate) s3: S3,
    /// Volumes.
    pub(crate) volumes: Volumes,
    /// The audit log.
    pub(crate) audit: Audit,
    /// Logs on standard error.
    pub(crate) log: Log,
    /// Starting and stopping.
    pub(crate) process: Process,
}

/// `[root_key]`: at most one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootKey {
    /// A file that holds the root key; `root.key` in the data directory unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// Where a passphrase is read from that the root key is derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase: Option<PassphraseFrom>,
}

/// Where a passphrase is read from. Never an argument or the environment: other processes can read both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum PassphraseFrom {
    /// The terminal, without echo.
    Prompt,
    /// An open file descriptor, to its end.
    Fd(u32),
}

impl std::str::FromStr for PassphraseFrom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("fd:").map(str::parse);
        match (text, number) {
            ("prompt", _) => Ok(Self::Prompt),
            (_, Some(Ok(number))) => Ok(Self::Fd(number)),
            _ => Err("must be `prompt`, or `fd:` and the number of an open file descriptor"),
        }
    }
}

impl TryFrom<String> for PassphraseFrom {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PassphraseFrom> for String {
    fn from(from: PassphraseFrom) -> Self {
        match from {
            PassphraseFrom::Prompt => "prompt".into(),
            PassphraseFrom::Fd(number) => format!("fd:{number}"),
        }
    }
}

/// `[aws]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Aws {
    /// Address and port; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Connections whose client has sent a request with a valid signature. When one more comes, one that does nothing is
    /// closed; if all are at work, the request is refused.
    pub(crate) connections_max: usize,
    /// Connections whose client has not. When one more comes, the oldest of those from where most come is closed.
    pub(crate) strangers_max: usize,
    /// A client that has not sent its request head by then is closed.
    pub(crate) header_timeout_seconds: u64,
    /// A client that keeps a body, either way, waiting for so long is given up.
    pub(crate) stall_seconds: u64,
    /// So many bytes a second a client must move of a body, over that time.
    pub(crate) bytes_per_second_min: u64,
    /// What the bodies of all requests and answers may hold in memory.
    pub(crate) body_memory_mib: u64,
}

/// `[nbd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Nbd {
    /// TCP address besides the unix socket `nbd.sock`; none unless set. Loopback only, for want of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// Connections with an export, on the unix socket and over TCP each; more are refused.
    pub(crate) connections_max: usize,
    /// Clients that have no export yet, on the unix socket and over TCP each; when one more comes, the oldest of those
    /// from where most come is closed.
    pub(crate) handshakes_max: usize,
    /// A client that takes longer over its part of the handshake is closed.
    pub(crate) handshake_timeout_seconds: u64,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Admin {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`.
    pub(crate) listen: SocketAddr,
}

/// `[s3]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct S3 {
    /// How long one bucket key seals new objects before the keyring is asked for another.
    pub(crate) bucket_key_seconds: u64,
}

/// `[volumes]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Volumes {
    /// Whether volumes that are not encrypted are forbidden for good, whoever asks.
    pub(crate) require_encryption: bool,
}

/// `[audit]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Audit {
    /// Whether each access to an object leaves a record, as each use of a key does.
    pub(crate) data_events: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
    /// A `tracing` filter, such as `info` or `info,volume=debug`.
    pub(crate) filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    /// Refuse to start when memory cannot be locked, instead of warning.
    pub(crate) require_locked_memory: bool,
    /// After SIGTERM, requests in flight have this long to end.
    pub(crate) drain_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./sealgate-data"),
            accounts: vec!["123456789012".into()],
            regions: vec!["us-east-1".into()],
            allow_plain_http: false,
            root_key: RootKey::default(),
            aws: Aws::default(),
            nbd: Nbd::default(),
            admin: Admin::default(),
            s3: S3::default(),
            volumes: Volumes::default(),
            audit: Audit::default(),
            log: Log::default(),
            process: Process::default(),
        }
    }
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            connections_max: 16384,
            strangers_max: 1024,
            header_timeout_seconds: 30,
            stall_seconds: 30,
            bytes_per_second_min: 1024,
            body_memory_mib: 1024,
        }
    }
}

impl Default for Nbd {
    fn default() -> Self {
        Self {
            listen: None,
            connections_max: 16384,
            handshakes_max: 512,
            handshake_timeout_seconds: 30,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9100)),
        }
    }
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket_key_seconds: 300,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".into(),
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self {
            require_locked_memory: false,
            drain_seconds: 8,
        }
    }
}

/// What arguments and environment set; `None` leaves the file's or the default value.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Overrides {
    /// Configuration file (TOML)
    #[arg(long, env = "SEALGATE_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Data directory [default: ./sealgate-data]
    #[arg(long, env = "SEALGATE_DATA_DIR", value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// What is wrong with the configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        file: PathBuf,
        source: std::io::Error,
    },
    /// The file is no TOML, or a value has the wrong type.
    Malformed { file: PathBuf, message: String },
    /// A key that is not known.
    UnknownKey {
        file: PathBuf,
        key: String,
        nearest: Option<String>,
    },
    /// A value that cannot be served.
    Invalid { key: &'static str, why: String },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(f, "cannot read {}: {source}", file.display())
            }
            Self::Malformed { file, message } => {
                write!(
                    f,
                    "{}: {}",
                    file.display(),
                    message.trim().replace('\n', " ")
                )
            }
            Self::UnknownKey { file, key, nearest } => {
                write!(f, "{}: unknown configuration key `{key}`", file.display())?;
                match nearest {
                    Some(n) => write!(f, "; did you mean `{n}`?"),
                    None => Ok(()),
                }
            }
            Self::Invalid { key, why } => write!(f, "configuration key `{key}`: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The file named by `overrides` (or the defaults), with `overrides` on top, not yet checked.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut config = match &overrides.config {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).map_err(|source| ConfigError::Unreadable {
                        file: file.clone(),
                        source,
                    })?;
                Self::parse(&text, file)?
            }
            None => Self::default(),
        };
        if let Some(dir) = &overrides.data_dir {
            config.data_dir.clone_from(dir);
        }
        Ok(config)
    }

    /// Parses the text of a configuration file; `file` is for messages.
    fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        // Without the line itself, which may hold what was taken for a secret's place.
        let malformed = |e: toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| 1 + before.matches('\n').count());
            let message = e.message().trim();
            ConfigError::Malformed {
                file: file.into(),
                message: match line {
                    Some(line) => format!("line {line}: {message}"),
                    None => message.to_owned(),
                },
            }
        };
        let table: toml::Table = toml::from_str(text).map_err(malformed)?;
        let known = known_keys();
        let mut seen = Vec::new();
        flatten(&table, "", &mut seen);
        for key in seen {
            if !known.contains(&key) {
                return Err(ConfigError::UnknownKey {
                    file: file.into(),
                    nearest: nearest(&key, &known),
                    key,
                });
            }
        }
        toml::from_str(text).map_err(malformed)
    }

    /// The accounts and regions that are served.
    pub(crate) fn scopes(&self) -> Result<Scopes, ConfigError> {
        Scopes::parse(&self.accounts, &self.regions)
            .map_err(|(key, why)| ConfigError::Invalid { key, why })
    }

    /// Refuses what cannot be served. Call once all sources are merged.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key, why: &str| {
            Err(ConfigError::Invalid {
                key,
                why: why.into(),
            })
        };
        self.scopes()?;
        if self.root_key.file.is_some() && self.root_key.passphrase.is_some() {
            return invalid("root_key", "set either `file` or `passphrase`, not both");
        }
        if self.nbd.listen.is_some_and(|a| !a.ip().is_loopback()) {
            return invalid(
                "nbd.listen",
                "NBD over TCP beyond loopback needs TLS, which is not there yet; use a loopback address or the unix socket",
            );
        }
        for (key, address) in [
            ("aws.listen", self.aws.listen),
            ("admin.listen", self.admin.listen),
        ] {
            if !self.allow_plain_http && !address.ip().to_canonical().is_loopback() {
                return invalid(
                    key,
                    &format!(
                        "{address} is not loopback, and HTTP without TLS shows requests and objects to the network: \
                         listen on loopback behind a proxy with TLS, or set `allow_plain_http = true` \
                         (--allow-plain-http) where the network may see them"
                    ),
                );
            }
        }
        let limits = [
            self.aws.connections_max,
            self.aws.strangers_max,
            self.nbd.connections_max,
            self.nbd.handshakes_max,
        ];
        if limits.contains(&0) {
            return invalid(
                "connections_max, strangers_max and handshakes_max",
                "must be at least 1",
            );
        }
        if !(1..=3600).contains(&self.aws.stall_seconds) {
            return invalid("aws.stall_seconds", "must be between 1 and 3600");
        }
        if self.aws.bytes_per_second_min == 0 {
            return invalid(
                "aws.bytes_per_second_min",
                "must be at least 1: one byte now and then would hold a connection for ever",
            );
        }
        if !(16..=1 << 20).contains(&self.aws.body_memory_mib) {
            return invalid(
                "aws.body_memory_mib",
                "must be between 16 and 1048576: one upload takes up to 6",
            );
        }
        if self.aws.header_timeout_seconds == 0 || self.nbd.handshake_timeout_seconds == 0 {
            return invalid(
                "header_timeout_seconds and handshake_timeout_seconds",
                "must be at least 1: no client is faster than that",
            );
        }
        if !(1..=86_400).contains(&self.s3.bucket_key_seconds) {
            return invalid("s3.bucket_key_seconds", "must be between 1 and 86400");
        }
        if self
            .log
            .filter
            .parse::<tracing_subscriber::filter::Targets>()
            .is_err()
        {
            return invalid(
                "log.filter",
                "is not a tracing filter, such as `info,volume=debug`",
            );
        }
        Ok(())
    }

    /// The text of a file that sets every key to this value.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

/// Dotted names of every key there is, taken from the types so that the list cannot grow stale.
fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    if let Ok(table) = toml::Table::try_from(Config::default()) {
        flatten(&table, "", &mut keys);
    }
    // `None` does not serialize.
    keys.extend(["nbd.listen", "root_key.file", "root_key.passphrase"].map(String::from));
    keys
}

fn flatten(table: &toml::Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            toml::Value::Table(inner) => flatten(inner, &key, keys),
            _ => keys.push(key),
        }
    }
}

fn nearest(key: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|k| {
            // A key in the wrong section is a near miss too.
            let tail = |s: &str| s.rsplit('.').next().unwrap_or_default().to_owned();
            let distance =
                strsim::osa_distance(key, k).min(strsim::osa_distance(&tail(key), &tail(k)) + 1);
            (distance, k)
        })
        .min()
        .filter(|(distance, _)| *distance <= key.len() / 2 + 1)
        .map(|(_, k)| k.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("sealgate.toml"))
    }

    #[test]
    fn the_annotated_file_in_the_repository_is_the_defaults() {
        let text = include_str!("../../../config/sealgate.toml");
        let config = parse(text).unwrap();
        config.check().unwrap();
        assert_eq!(config, Config::default());
        for key in known_keys() {
            let name = key.rsplit('.').next().unwrap();
            assert!(
                text.contains(&format!("{name} =")),
                "{key} is not explained in config/sealgate.toml"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_nearest_one_is_named() {
        let error = parse("[aws]\nlisen = \"127.0.0.1:1\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`aws.lisen`") && error.contains("`aws.listen`"),
            "{error}"
        );
        let error = parse("acounts = [\"1\"]").unwrap_err().to_string();
        assert!(error.contains("`accounts`"), "{error}");
        let error = parse("region = \"eu-west-1\"").unwrap_err().to_string();
        assert!(error.contains("`regions`"), "{error}");
        let error = parse("[nbd]\nbucket_key_seconds = 3")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`s3.bucket_key_seconds`"), "{error}");
    }

    #[test]
    fn errors_are_one_line() {
        for text in [
            "a = ",
            "[aws]\nlisten = 3",
            "[aws]\nlisten = \"nowhere\"",
            "zzzzzzzzzzzz = 1",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_served_are_refused() {
        let refused = |f: fn(&mut Config)| {
            let mut c = Config::default();
            f(&mut c);
            c.check().unwrap_err().to_string()
        };
        assert!(refused(|c| c.accounts = vec!["12".into()]).contains("accounts"));
        assert!(refused(|c| c.regions = vec!["US".into()]).contains("regions"));
        assert!(refused(|c| c.nbd.listen = Some(([0, 0, 0, 0], 10809).into())).contains("TLS"));
        let plain: [fn(&mut Config); 4] = [
            |c| c.aws.listen = ([0, 0, 0, 0], 9000).into(),
            |c| c.admin.listen = ([10, 0, 0, 1], 9100).into(),
            |c| c.aws.listen = (std::net::Ipv6Addr::UNSPECIFIED, 9000).into(),
            |c| c.admin.listen = "[::ffff:10.0.0.1]:9100".parse().unwrap(),
        ];
        for listen in plain {
            let why = refused(listen);
            assert!(why.contains("--allow-plain-http"), "{why}");
            let mut config = Config {
                allow_plain_http: true,
                ..Config::default()
            };
            listen(&mut config);
            config.check().unwrap();
        }
        let mut loopback = Config::default();
        for address in ["[::1]:1", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"] {
            loopback.aws.listen = address.parse().unwrap();
            loopback.check().unwrap();
        }
        assert!(refused(|c| c.nbd.handshake_timeout_seconds = 0).contains("handshake_timeout"));
        assert!(refused(|c| c.log.filter = "a=b=c".into()).contains("log.filter"));
        assert!(refused(|c| c.s3.bucket_key_seconds = 0).contains("bucket_key_seconds"));
        let both = |c: &mut Config| {
            c.root_key.file = Some("k".into());
            c.root_key.passphrase = Some(PassphraseFrom::Prompt);
        };
        assert!(refused(both).contains("root_key"));
    }

    #[test]
    fn a_passphrase_comes_from_a_prompt_or_a_file_descriptor_and_nowhere_else() {
        let from = |text: &str| {
            let config = parse(&format!("[root_key]\npassphrase = \"{text}\"")).ok()?;
            config.root_key.passphrase
        };
        assert_eq!(from("prompt"), Some(PassphraseFrom::Prompt));
        assert_eq!(from("fd:3"), Some(PassphraseFrom::Fd(3)));
        for wrong in ["", "fd:", "fd:-1", "fd:x", "secret words"] {
            assert_eq!(from(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_shown() {
        let text = "[root_key]\npassphrase = \"correct horse battery\"\n";
        let error = Config::parse(text, Path::new("f.toml")).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("line 2"), "{said}");
        assert!(!said.contains("correct horse"), "{said}");
    }
}
