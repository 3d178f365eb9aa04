//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::attach::{Attach, Detach};
use crate::config::{Config, ConfigError, LogFormat, Overrides, PassphraseFrom};
use crate::output::Format;

/// Encrypting storage gateway: sealed NBD volumes and sealed S3 objects on one keyring
#[derive(Debug, Parser)]
#[command(name = "sealgate", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// How commands print
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "table",
        env = "SEALGATE_OUTPUT"
    )]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve volumes and objects until SIGTERM or SIGINT
    Serve(Serve),
    /// Print the shell lines that point the AWS CLI and SDKs here: eval "$(sealgate env)"
    Env,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Volumes: of the running server, or checked and repaired while it is stopped
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Keys of the running server
    #[command(subcommand)]
    Key(KeyCommand),
    /// Long work of the running server
    #[command(subcommand)]
    Job(JobCommand),
    /// The root key, under which everything is sealed
    #[command(subcommand)]
    Root(RootCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The way out of a start that was refused; the server must be stopped
    Doctor {
        /// Go on with a part that lost records or is older than the rest; the audit log says so
        #[arg(long, value_name = "PART", required_unless_present_any = ["rebuild", "adopt", "check"])]
        accept_older: Option<Part>,
        /// Make the volumes' records again from the volumes' folders, where the catalogue lost them or has older ones;
        /// the audit log says so
        #[arg(long, conflicts_with = "accept_older")]
        rebuild: bool,
        /// Begin with nothing but the root header and the catalogue: the next start makes every other part anew; the audit
        /// log says so
        #[arg(long, conflicts_with_all = ["accept_older", "rebuild"])]
        adopt: bool,
        /// Look for what a start would refuse, and for damage in all of the object index however long it is; changes nothing
        #[arg(long, conflicts_with_all = ["accept_older", "rebuild", "adopt"])]
        check: bool,
    },
    /// Make a volume a device of the Linux kernel, and keep it so over restarts of the server; as root, until SIGTERM
    Attach(Attach),
    /// Detach a device that nobody uses
    Detach(Detach),
    /// List the devices that have volumes
    Attached,
    /// Whether the server runs, where, and what it holds
    Status,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `sealgate serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address of the AWS endpoint [default: 127.0.0.1:9000]
    #[arg(long, env = "SEALGATE_AWS_LISTEN", value_name = "ADDR")]
    aws_listen: Option<SocketAddr>,
    /// NBD over TCP, loopback only; the unix socket is always there
    #[arg(long, env = "SEALGATE_NBD_LISTEN", value_name = "ADDR")]
    nbd_listen: Option<SocketAddr>,
    /// Address of /metrics, /healthz, /readyz [default: 127.0.0.1:9100]
    #[arg(long, env = "SEALGATE_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// Let the AWS and admin endpoints listen beyond loopback although HTTP is not encrypted
    #[arg(long, env = "SEALGATE_ALLOW_PLAIN_HTTP", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    allow_plain_http: bool,
    /// Log lines: text or json
    #[arg(long, env = "SEALGATE_LOG_FORMAT", value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// What to log, such as info or info,volume=debug
    #[arg(long, env = "SEALGATE_LOG_FILTER", value_name = "FILTER")]
    log_filter: Option<String>,
}

/// `sealgate config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the file, environment and arguments, and print what `serve` would use
    Check(Serve),
}

/// `sealgate root`
#[derive(Debug, Subcommand)]
pub(crate) enum RootCommand {
    /// Which root key the store needs; needs no key, and the server may run
    Status,
    /// Replace the root key, with the server stopped; no data is rewritten. Or, with --store-key, the key that it
    /// wraps, by the running server
    Rotate {
        /// Replace the store key instead: the running server seals every record anew, as a job
        #[arg(long, conflicts_with_all = ["to_file", "to_passphrase"])]
        store_key: bool,
        /// Wait until that job has ended
        #[arg(long, requires = "store_key")]
        wait: bool,
        /// Move the root key to a new file
        #[arg(long, value_name = "PATH", conflicts_with = "to_passphrase")]
        to_file: Option<PathBuf>,
        /// Derive the root key from a passphrase, read from `prompt` or `fd:N`
        #[arg(long, value_name = "WHERE")]
        to_passphrase: Option<PassphraseFrom>,
    },
}

/// `sealgate audit`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Say what was dropped, reordered, cut off or rewritten; needs no key, and the server may run
    Verify {
        /// A copy of the log's folder, with its journal beside it [default: that of the data directory]
        folder: Option<PathBuf>,
    },
}

/// A part of the data directory that can be gone on with although something of it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The audit log.
    Audit,
    /// The record that wraps the store key.
    RootHeader,
    /// What exists; not if it is missing.
    Catalogue,
    /// The account root's access key.
    Credentials,
    /// The folder of all volumes, as such.
    Volumes,
    /// The folder of all objects, as such.
    Objects,
    /// Which objects there are.
    Index,
}

impl From<Part> for parts::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Audit => Self::Audit,
            Part::RootHeader => Self::RootHeader,
            Part::Catalogue => Self::Catalogue,
            Part::Credentials => Self::Credentials,
            Part::Volumes => Self::Volumes,
            Part::Objects => Self::Objects,
            Part::Index => Self::Index,
        }
    }
}

/// `sealgate job`
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs: those under way, and those that ended within a week
    List,
    /// Cancel a job; what it did so far is cleaned up
    Cancel {
        /// The job's id
        job_id: String,
    },
}

/// `sealgate volume`
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Create a volume; its id is its NBD export name
    Create {
        /// Size in GiB
        #[arg(long, value_name = "GIB")]
        size: u32,
        /// Tag `Name`, usable as an export name too while it is unique
        #[arg(long)]
        name: Option<String>,
        /// Key id, ARN or alias to encrypt under [default: the account's default key]
        #[arg(long, value_name = "KEY")]
        kms_key_id: Option<String>,
        /// Store the volume in plaintext; needs encryption by default to be disabled (`aws ec2
        /// disable-ebs-encryption-by-default`)
        #[arg(long, conflicts_with = "kms_key_id")]
        unencrypted: bool,
    },
    /// List volumes
    List,
    /// Delete a volume and the key that opens it
    Delete {
        /// The volume's id
        volume_id: String,
    },
    /// Say what is damaged of a volume and change nothing of it; the server must be stopped. Fails if anything is
    Check {
        /// The volume's id
        volume_id: String,
    },
    /// Make a damaged volume whole as far as that can be, and say what is lost; the server must be stopped. Fails if
    /// anything is lost
    Repair {
        /// The volume's id
        volume_id: String,
        /// Go on also if parts of the volume can no longer be told to be its
        #[arg(long)]
        accept_loss: bool,
    },
}

/// `sealgate key`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Create a key
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// A name for it, with or without `alias/`
        #[arg(long)]
        alias: Option<String>,
    },
    /// List keys with their aliases and states
    List,
}

impl Serve {
    /// The whole configuration for this run, checked.
    pub(crate) fn config(&self, overrides: &Overrides) -> Result<Config, ConfigError> {
        let mut config = Config::load(overrides)?;
        if let Some(listen) = self.aws_listen {
            config.aws.listen = listen;
        }
        if let Some(listen) = self.nbd_listen {
            config.nbd.listen = Some(listen);
        }
        if let Some(listen) = self.admin_listen {
            config.admin.listen = listen;
        }
        config.allow_plain_http |= self.allow_plain_http;
        match self.log_format.as_deref() {
            Some("json") => config.log.format = LogFormat::Json,
            Some(_) => config.log.format = LogFormat::Text,
            None => {}
        }
        if let Some(filter) = &self.log_filter {
            config.log.filter.clone_from(filter);
        }
        config.check()?;
        Ok(config)
    }
}
