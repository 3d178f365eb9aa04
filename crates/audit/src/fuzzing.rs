//! Private decoders, for the fuzz targets alone.

/// The recovery of an audit segment: what it keeps is whole lines in sequence.
pub fn audit_segment(data: &[u8]) {
    let (end, next) = crate::segment::whole_records(data, 1);
    let kept = &data[..end];
    let lines = kept.split_inclusive(|&byte| byte == b'\n').count() as u64;
    assert!(kept.is_empty() || kept.ends_with(b"\n"));
    assert_eq!(next, 1 + lines);
}
