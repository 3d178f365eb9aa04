//! Logs on standard error, for people or as JSON.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat};

/// Installs the process's subscriber. Call once.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter: Targets = log.filter.parse()?;
    // s3s logs every client's 404 as an error and, at debug, whole requests with SSE-C keys in them.
    let filter = filter.with_target("s3s", LevelFilter::OFF);
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Text => registry.with(layer.with_filter(filter)).try_init()?,
        LogFormat::Json => registry.with(layer.json().with_filter(filter)).try_init()?,
    }
    Ok(())
}
