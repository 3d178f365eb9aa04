//! Private decoders, for the fuzz targets alone.

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
