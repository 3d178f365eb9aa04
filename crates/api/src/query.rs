//! The Query protocol's requests: a form in the body of a POST, or the query of a GET.
//!
//! Names may not repeat, lists are numbered from 1 (`VolumeId.1`, `Filter.1.Value.2`), and what a
//! request does not use is ignored, as AWS does.
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, request::Parts};

/// Parameters at most.
const PARAMETERS_MAX: usize = 5000;

/// A form that does not parse. The client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("The request is not a well-formed query: {0}")]
    Malformed(&'static str),
    #[error("The parameter {0} is given more than once.")]
    Repeated(String),
}

/// The parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Form {
    parameters: BTreeMap<String, String>,
}

impl Form {
    /// Reads the parameters: those of the body of a POST, else those of the target, without a
    /// presigned signature's.
    pub(crate) fn read(head: &Parts, body: &Bytes) -> Result<Self, FormError> {
        let text = if head.method == Method::POST {
            std::str::from_utf8(body).map_err(|_| FormError::Malformed("it is not UTF-8"))?
        } else {
            head.uri.query().unwrap_or_default()
        };
        let mut parameters = BTreeMap::new();
        for pair in text
            .trim_ascii_end()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name.starts_with("X-Amz-") {
                continue;
            }
            if parameters.len() == PARAMETERS_MAX {
                return Err(FormError::Malformed("it has too many parameters"));
            }
            if parameters.insert(name.clone(), value).is_some() {
                return Err(FormError::Repeated(name.chars().take(64).collect()));
            }
        }
        Ok(Self { parameters })
    }

    /// One parameter; an empty one is as none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// One parameter, empty or not.
    pub(crate) fn get_even_empty(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The values of `NAME.1`, `NAME.2`..., in the order of their numbers. Gaps are not minded.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let mut values: Vec<(u32, &str)> = self
            .under(name)
            .filter_map(|(rest, value)| Some((number(rest)?, value)))
            .collect();
        values.sort_unstable_by_key(|(number, _)| *number);
        values.into_iter().map(|(_, value)| value).collect()
    }

    /// The numbers N for which there is a `NAME.N.something`, rising.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .under(name)
            .filter_map(|(rest, _)| number(rest.split_once('.')?.0))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// All names, lists' numbers and members included.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// What is named `NAME.…`, with what follows the dot.
    fn under<'s>(&'s self, name: &str) -> impl Iterator<Item = (&'s str, &'s str)> {
        self.parameters.iter().filter_map(move |(full, value)| {
            let rest = full.strip_prefix(name)?.strip_prefix('.')?;
            Some((rest, value.as_str()))
        })
    }
}

/// A list's number: decimal, without sign or leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn decode(text: &str) -> Result<String, FormError> {
    iam::uri::decode_form(text).ok_or(FormError::Malformed("a parameter is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(body: &'static str) -> Result<Form, FormError> {
        let (head, ()) = http::Request::post("/?Action=Ignored")
            .body(())
            .unwrap()
            .into_parts();
        Form::read(&head, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn a_form_is_decoded_and_lists_are_ordered_by_number() {
        let form =
            post("Action=Describe&VolumeId.10=j&VolumeId.2=b&VolumeId.1=a+%2B&Empty=&Other\n")
                .unwrap();
        assert_eq!(form.get("Action"), Some("Describe"));
        assert_eq!(form.list("VolumeId"), ["a +", "b", "j"]);
        assert_eq!(form.get("Empty"), None);
        assert_eq!(form.get_even_empty("Empty"), Some(""));
    }

    #[test]
    fn numbered_structures_are_found() {
        let form =
            post("Filter.2.Name=b&Filter.1.Name=a&Filter.1.Value.1=x&Filter.01.Name=c").unwrap();
        assert_eq!(form.numbers("Filter"), [1, 2]);
        assert_eq!(form.list("Filter.1.Value"), ["x"]);
    }

    #[test]
    fn a_repeated_name_is_refused() {
        assert_eq!(
            post("a=1&a=2").unwrap_err(),
            FormError::Repeated("a".into())
        );
        assert!(post("a=%ff").is_err());
    }

    #[test]
    fn a_get_takes_its_query() {
        let (head, ()) = http::Request::get("/?Action=GetCallerIdentity&X-Amz-Signature=s")
            .body(())
            .unwrap()
            .into_parts();
        let form = Form::read(&head, &Bytes::new()).unwrap();
        assert_eq!(form.get("Action"), Some("GetCallerIdentity"));
        assert_eq!(form.get("X-Amz-Signature"), None);
    }
}
