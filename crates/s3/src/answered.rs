//! What an operation's answer has instead of what s3s writes, handed through its response extensions.

use std::sync::Arc;

use http::StatusCode;

use crate::opening::PlainStream;

/// A body that replaces s3s's, handed through its response extensions.
#[derive(Clone)]
pub(crate) struct Answer(pub(crate) Arc<parking_lot::Mutex<Option<(PlainStream, u64)>>>);

impl Answer {
    pub(crate) fn new(stream: PlainStream, len: u64) -> Self {
        Self(Arc::new(parking_lot::Mutex::new(Some((stream, len)))))
    }
}

/// A status that replaces s3s's.
#[derive(Clone, Copy)]
pub(crate) struct Status(pub(crate) StatusCode);
