//! `Filter.N.Name` and `Filter.N.Value.M`, and pages.
//!
//! All filters must match; of one filter's values, one. `*` stands for any characters and `?` for
//! one, unless a backslash is before it.
use super::fault::Fault;
use crate::query::Form;

/// Filters at most, and values of one, as EC2's.
const FILTERS_MAX: usize = 50;
const VALUES_MAX: usize = 200;

/// What filters ask a thing for.
pub(super) trait Filtered {
    /// The values a filter of this name is compared with; `None` if there is no such filter.
    fn values(&self, name: &str) -> Option<Vec<String>>;
}

/// The filters of one request.
pub(super) struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Reads them; refuses names that `known` does not know.
    pub(super) fn read(form: &Form, known: impl Fn(&str) -> bool) -> Result<Self, Fault> {
        let numbers = form.numbers("Filter");
        // Before they are read: each is looked for among all parameters.
        if numbers.len() > FILTERS_MAX {
            return Err(Fault::InvalidParameterValue(format!(
                "A request has at most {FILTERS_MAX} filters."
            )));
        }
        let mut filters = Vec::new();
        for number in numbers {
            let name = form
                .get(&format!("Filter.{number}.Name"))
                .ok_or(Fault::MissingParameter("Filter.Name"))?;
            if !known(name) {
                let name: String = name.chars().take(64).collect();
                return Err(Fault::InvalidParameterValue(format!(
                    "The filter '{name}' is invalid"
                )));
            }
            let values: Vec<String> = form
                .list(&format!("Filter.{number}.Value"))
                .into_iter()
                .map(str::to_owned)
                .collect();
            if values.is_empty() {
                return Err(Fault::MissingParameter("Filter.Value"));
            }
            if values.len() > VALUES_MAX {
                return Err(Fault::InvalidParameterValue(format!(
                    "A filter has at most {VALUES_MAX} values."
                )));
            }
            filters.push((name.to_owned(), values));
        }
        Ok(Self(filters))
    }

    /// Whether `thing` passes all of them.
    pub(super) fn pass(&self, thing: &impl Filtered) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let values = thing.values(name).unwrap_or_default();
            values
                .iter()
                .any(|value| patterns.iter().any(|pattern| matches(pattern, value)))
        })
    }
}

/// Whether `text` matches `pattern`, in time that grows with their product at most.
fn matches(pattern: &str, text: &str) -> bool {
    #[derive(PartialEq)]
    enum Token {
        Any,
        One,
        Char(char),
    }
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            c => Token::Char(c),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut t, mut p) = (0, 0);
    // Where to go on from if the last star has to take one more character.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match tokens.get(p) {
            Some(Token::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(token) if *token == Token::One || *token == Token::Char(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    tokens[p..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_ec2s() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "A", false),
            ("*", "", true),
            ("*", "anything", true),
            ("vol-*0", "vol-0120", true),
            ("vol-*0", "vol-0121", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
    }
}
