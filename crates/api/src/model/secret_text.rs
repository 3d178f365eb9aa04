//! Strings of a JSON text that may be secrets.
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A string of a JSON text, which is not copied but where it has escapes; then the copy is wiped.
///
/// serde_json itself unescapes into a buffer that it does not wipe, so secrets (plaintext in base64,
/// passwords) are read through this and never as a `String`. PHP's encoder writes each slash of a
/// base64 text as `\/`: escapes are no rarity.
pub(crate) enum SecretText<'a> {
    Plain(&'a str),
    Unescaped(Zeroizing<String>),
}

/// The JSON text is not that of a string, or it has half of a surrogate pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotText;

impl<'a> SecretText<'a> {
    /// Reads the string of a JSON text, quotes included.
    pub(crate) fn parse(json: &'a str) -> Result<Self, NotText> {
        let inner = json
            .strip_prefix('"')
            .and_then(|json| json.strip_suffix('"'))
            .ok_or(NotText)?;
        if inner.contains('\\') {
            unescape(inner).map(Self::Unescaped).ok_or(NotText)
        } else {
            Ok(Self::Plain(inner))
        }
    }

    pub(crate) fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Unescaped(text) => text,
        }
    }

    /// How many bytes the text is in base64 (standard alphabet, padded), without decoding it; `None`
    /// if it is not. Bits that a last symbol has too many are seen when it is decoded.
    pub(crate) fn base64_len(&self) -> Option<u64> {
        let text = self.expose().as_bytes();
        let symbols = match text {
            [symbols @ .., b'=', b'='] | [symbols @ .., b'='] => symbols,
            symbols => symbols,
        };
        let is_symbol = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        // To the end without a branch, so that many are compared at a time.
        let symbols_alone = symbols.iter().fold(true, |all, b| all & is_symbol(b));
        let whole = text.len().is_multiple_of(4) && symbols_alone;
        whole.then_some(symbols.len() as u64 * 3 / 4)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SecretText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?;
        Self::parse(json.get()).map_err(|NotText| D::Error::custom("a value is not a string"))
    }
}

/// Undoes the escapes of a JSON string.
fn unescape(text: &str) -> Option<Zeroizing<String>> {
    // What it becomes is never longer, so the buffer is never moved.
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = escaped.chars();
        let unescaped = match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = hex(chars.as_str())?;
                chars = chars.as_str().get(4..)?.chars();
                if (0xd800..0xdc00).contains(&unit) {
                    let low = chars.as_str().strip_prefix("\\u")?;
                    let pair = char::decode_utf16([unit, hex(low)?]).next()?.ok()?;
                    chars = low.get(4..)?.chars();
                    pair
                } else {
                    char::from_u32(u32::from(unit))?
                }
            }
            plain @ ('"' | '\\' | '/') => plain,
            _ => return None,
        };
        out.push(unescaped);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Some(out)
}

/// The four hexadecimal digits a text begins with.
fn hex(text: &str) -> Option<u16> {
    let digits = text.get(..4)?;
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_as_serde_json_undoes_them() {
        for json in [
            r#""""#,
            r#""plain \u00e9 \u0041""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\ud83d\ude00 \uD83D\uDE00x""#,
            r#""a\/b\/""#,
        ] {
            let expected: String = serde_json::from_str(json).unwrap();
            assert_eq!(
                SecretText::parse(json).ok().unwrap().expose(),
                expected,
                "{json}"
            );
        }
        for bad in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83d\u0041""#,
            r#""\u+041""#,
            r#""\u00""#,
            "5",
            "null",
            "\"",
        ] {
            assert!(SecretText::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_needs_no_unescaping_is_not_copied() {
        assert!(matches!(
            SecretText::parse(r#""aGk/""#),
            Ok(SecretText::Plain("aGk/"))
        ));
    }

    #[test]
    fn the_length_of_base64_is_known_without_decoding_it() {
        use base64::{Engine, engine::general_purpose::STANDARD};

        for len in 0..20 {
            let json = serde_json::to_string(&STANDARD.encode(vec![0xff; len])).unwrap();
            assert_eq!(
                SecretText::parse(&json).ok().unwrap().base64_len(),
                Some(len as u64)
            );
        }
        for bad in [
            r#""aGk""#,
            r#""aGk_""#,
            r#""aGk/ ""#,
            r#""a===""#,
            r#""a=k=""#,
            r#""****""#,
        ] {
            assert_eq!(
                SecretText::parse(bad).ok().unwrap().base64_len(),
                None,
                "{bad}"
            );
        }
    }
}
