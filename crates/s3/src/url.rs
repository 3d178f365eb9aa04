//! Keys in URLs.

/// A key in a URL, and as `encoding-type=url` shows it: slashes are left alone.
pub(crate) fn encode_key(key: &str) -> String {
    iam::uri::encode_path(key).to_string()
}

/// Splits the value of `x-amz-copy-source` into bucket, key and version.
pub(crate) fn split_copy_source(value: &str) -> Option<(String, String, Option<String>)> {
    let (path, version) = match value.rsplit_once("?versionId=") {
        Some((path, version)) => (path, Some(version.to_owned())),
        None => (value, None),
    };
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()?;
    let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/')?;
    (!bucket.is_empty() && !key.is_empty()).then(|| (bucket.to_owned(), key.to_owned(), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_slashes() {
        assert_eq!(encode_key("a/b c+d&é"), "a/b%20c%2Bd%26%C3%A9");
    }

    #[test]
    fn a_copy_source_is_split_with_or_without_a_leading_slash() {
        let expected = Some(("b".to_owned(), "k/1+2".to_owned(), None));
        assert_eq!(split_copy_source("/b/k/1%2B2"), expected);
        assert_eq!(split_copy_source("b/k/1+2"), expected);
        let version = Some("null".to_owned());
        assert_eq!(
            split_copy_source("b/k?versionId=null"),
            Some(("b".into(), "k".into(), version))
        );
        assert_eq!(split_copy_source("bucket"), None);
        assert_eq!(split_copy_source("/b/"), None);
    }
}
