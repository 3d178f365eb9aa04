//! Private decoders, for the fuzz targets alone.

/// The contents of a job's record, after its seal was opened: what is read is written so that it is read the same.
pub fn record_contents(data: &[u8]) {
    if let Ok(record) = crate::record::decode(data) {
        let written = crate::record::encode(&record);
        assert_eq!(crate::record::decode(&written), Ok(record));
    }
}
