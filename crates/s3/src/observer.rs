//! What the front tells whoever counts.
//!
//! The gateway implements [`Observer`] with metrics. Calls happen on the
//! request's own task, so an implementation must not block.

use std::time::Duration;

/// One request, reported when its response body has ended or was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestEnd {
    /// The operation by its S3 name, such as `PutObject`; `Unknown` if the
    /// request matched none.
    pub operation: &'static str,
    /// The HTTP status that was sent.
    pub status: u16,
    /// Plain bytes taken from the request's body.
    pub bytes_in: u64,
    /// Bytes handed to the connection as the response's body.
    pub bytes_out: u64,
    /// From the call of `handle` to the end of the response's body.
    pub elapsed: Duration,
}

/// Receives the front's events. Every method defaults to nothing.
pub trait Observer: Send + Sync {
    /// A request ended.
    fn request(&self, end: &RequestEnd) {
        let _ = end;
    }

    /// A bucket key was needed: `hit` if the cache had it, otherwise the
    /// keyring was asked.
    fn bucket_key(&self, hit: bool) {
        let _ = hit;
    }
}

/// Discards everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoObserver;

impl Observer for NoObserver {}
