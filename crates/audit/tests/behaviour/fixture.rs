//! A log on a simulated disk.

use std::{path::Path, sync::Arc};

use audit::{AuditOptions, Event};
use host::disk::sim::SimDisk;

pub(crate) fn sim(seed: u64) -> SimDisk {
    SimDisk::new(seed)
}

pub(crate) fn options(disk: &SimDisk) -> AuditOptions {
    on(disk, "/audit")
}

pub(crate) fn on(disk: &SimDisk, dir: &str) -> AuditOptions {
    let mut options = AuditOptions::new(
        dir,
        Arc::new(host::clock::ManualClock::new(std::time::UNIX_EPOCH)),
    );
    options.disk = Arc::new(disk.clone());
    options
}

/// Waits on this thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// All records of all segments.
pub(crate) fn lines(disk: &SimDisk, options: &AuditOptions) -> Vec<serde_json::Value> {
    let text: Vec<u8> = segments(disk, &options.dir)
        .iter()
        .flat_map(|path| disk.bytes(path))
        .collect();
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

pub(crate) fn segments(disk: &SimDisk, dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = disk
        .paths()
        .into_iter()
        .map(|path| Path::new("/").join(path))
        .filter(|path| path.starts_with(dir) && path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    paths.sort();
    paths
}

pub(crate) fn event() -> Event<'static> {
    Event {
        time: std::time::SystemTime::UNIX_EPOCH,
        operation: "Encrypt",
        outcome: "Success",
        principal: "arn:aws:iam::123456789012:root",
        access_key: Some("AKIDEXAMPLE"),
        via: "api",
        account: Some("123456789012"),
        region: Some("us-east-1"),
        key: Some("arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        destination_key: None,
        alias: None,
        material: Some(1),
        encryption_context: None,
        destination_encryption_context: None,
        bucket: None,
        object: None,
        resource: None,
        request_id: "7a1c4d0e-3a34-4f2c-9a55-0a9c6e5ad8f1",
        source: None,
        count: None,
    }
}
