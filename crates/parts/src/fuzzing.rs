//! Private decoders, for the fuzz targets alone.

use crate::{mark::Marks, stamp::Head};

/// The contents of the record of the marks, after its seal was opened.
pub fn marks(data: &[u8]) {
    if let Some(marks) = Marks::decode(data) {
        assert_eq!(marks.encode(), data);
    }
}

/// The head of a stamp, which nothing has authenticated yet.
pub fn stamp(data: &[u8]) {
    let _ = Head::read(data);
}
