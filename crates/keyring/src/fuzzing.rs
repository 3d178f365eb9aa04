//! Private decoders, for the fuzz targets alone.

/// The recovery of an audit segment: what it keeps is whole lines in sequence.
pub fn audit_segment(data: &[u8]) {
    let (end, next) = crate::audit::whole_records(data, 1);
    let kept = &data[..end];
    let lines = kept.split_inclusive(|&byte| byte == b'\n').count() as u64;
    assert!(kept.is_empty() || kept.ends_with(b"\n"));
    assert_eq!(next, 1 + lines);
}

/// A root key file: what is read is written the same.
pub fn root_key_file(data: &[u8]) {
    crate::root::FileProvider::check_text(data);
}

/// The contents of store records, after their seal was opened.
pub fn record_contents(data: &[u8]) {
    crate::vault::decode_any(data);
}

/// A key argument: what is read prints and reads the same.
pub fn key_argument(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(argument) = text.parse::<crate::KeyArgument>() {
        let printed = match &argument {
            crate::KeyArgument::Id(id) => id.to_string(),
            crate::KeyArgument::Arn(arn) => arn.to_string(),
            crate::KeyArgument::Alias(name) => name.to_string(),
            crate::KeyArgument::AliasArn(arn, _) => arn.to_string(),
        };
        assert_eq!(printed.parse::<crate::KeyArgument>().ok(), Some(argument));
    }
}
