//! Percent-encoding as AWS does it, in signatures, forms and keys alike: every byte but `A-Z a-z 0-9 - . _ ~` becomes `%`
//! and two upper-case digits ("Create a signed AWS API request", `UriEncode`).
use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};

/// Everything but `A-Z a-z 0-9 - . _ ~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The same, with the slash left alone.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Encodes a name, a value or a segment of a path.
pub fn encode(text: &(impl AsRef<[u8]> + ?Sized)) -> PercentEncode<'_> {
    percent_encode(text.as_ref(), RESERVED)
}

/// Encodes a path or a key, whose slashes stay.
pub fn encode_path(text: &(impl AsRef<[u8]> + ?Sized)) -> PercentEncode<'_> {
    percent_encode(text.as_ref(), RESERVED_IN_PATH)
}

/// Decodes a name or a value of `application/x-www-form-urlencoded`, where a plus is a space; `None` if that is not
/// UTF-8. A percent sign without two digits behind it stands for itself.
pub fn decode_form(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_unreserved_characters_is_encoded() {
        assert_eq!(
            encode("a/b c+d&é-._~").to_string(),
            "a%2Fb%20c%2Bd%26%C3%A9-._~"
        );
        assert_eq!(encode_path("a/b c").to_string(), "a/b%20c");
        assert_eq!(encode(&[0xff_u8, b'%']).to_string(), "%FF%25");
    }

    #[test]
    fn a_form_decodes_with_its_pluses_and_only_to_utf_8() {
        assert_eq!(decode_form("a+b%2Bc%2f%"), Some("a b+c/%".to_owned()));
        assert_eq!(decode_form("%ff"), None);
        let text = "ein Wert: 100 % + ß";
        assert_eq!(
            decode_form(&encode(text).to_string()).as_deref(),
            Some(text)
        );
    }
}
