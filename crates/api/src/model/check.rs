//! The bounds of a value that was read, and AWS's way of saying that they were not kept.
use std::fmt::Display;

use super::{
    pattern::Pattern,
    read::Value,
    shape::{Kind, Length, Shape},
};

/// AWS names this many and no more.
const VIOLATIONS_MAX: usize = 10;

/// Characters of a value that are shown.
const SHOWN_LEN_MAX: usize = 128;

/// Checks a value; the error is for the client.
pub(super) fn check(shape: &Shape, value: &Value<'_>) -> Result<(), String> {
    let mut checker = Checker {
        path: String::new(),
        violations: Vec::new(),
    };
    checker.value(shape, value, false);
    match checker.violations.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("1 validation error detected: {one}")),
        all => Err(format!(
            "{} validation errors detected: {}",
            all.len(),
            all.join("; ")
        )),
    }
}

struct Checker {
    /// `tags.1.member.tagKey`.
    path: String,
    violations: Vec<String>,
}

/// A step on the way to a value.
enum Step<'a> {
    /// `KeyId`, said `keyId`.
    Member(&'a str),
    /// From 1.
    Element(usize),
    Entry(&'a str),
}

impl Checker {
    /// `hidden` if the value is a part of one that is sensitive.
    fn value(&mut self, shape: &Shape, value: &Value<'_>, hidden: bool) {
        if self.violations.len() >= VIOLATIONS_MAX {
            return;
        }
        let hidden = hidden || shape.sensitive;
        let shown = || if hidden { None } else { show(value) };
        match (shape.kind, value) {
            (Kind::Structure(members), Value::Structure(values)) => {
                for (member, value) in members.iter().zip(values) {
                    // Most members of a request are not there: they need no path.
                    if matches!(value, None | Some(Value::Null)) && !member.required {
                        continue;
                    }
                    self.under(Step::Member(member.name), |checker| match value {
                        None | Some(Value::Null) => checker.null(),
                        Some(value) => checker.value(member.shape, value, hidden),
                    });
                }
            }
            (Kind::List(element, length), Value::List(values)) => {
                self.length(length, values.len() as u64, shown);
                for (index, value) in values.iter().enumerate() {
                    self.under(Step::Element(index + 1), |checker| {
                        checker.element(element, value, hidden);
                    });
                }
            }
            (Kind::Map { key, value, length }, Value::Map(entries)) => {
                self.length(length, entries.len() as u64, shown);
                for (name, entry) in entries {
                    self.key(key, name, hidden);
                    let name: String = name.chars().take(SHOWN_LEN_MAX).collect();
                    let name = if hidden { "*" } else { name.as_str() };
                    self.under(Step::Entry(name), |checker| {
                        checker.element(value, entry, hidden);
                    });
                }
            }
            (
                Kind::Text {
                    length,
                    pattern,
                    words,
                },
                Value::Text(_) | Value::Secret(_),
            ) => {
                let text = match value {
                    Value::Text(text) => text,
                    Value::Secret(text) => text.expose(),
                    _ => "",
                };
                self.text(text, length, pattern, words, shown);
            }
            (Kind::Blob(length), Value::Blob(len, _)) => self.length(length, *len, || None),
            (Kind::Integer { min, max }, Value::Integer(number)) => {
                self.range(min, max, *number, shown);
            }
            (Kind::Double { min, max }, Value::Double(number)) => {
                self.range(min, max, *number, shown);
            }
            // Reading gave each value the type of its shape.
            _ => {}
        }
    }

    fn element(&mut self, shape: &Shape, value: &Value<'_>, hidden: bool) {
        match value {
            Value::Null => self.null(),
            value => self.value(shape, value, hidden),
        }
    }

    /// A map's key, which AWS reports as the map's own fault.
    fn key(&mut self, shape: &Shape, name: &str, hidden: bool) {
        let Kind::Text {
            length,
            pattern,
            words,
        } = shape.kind
        else {
            return;
        };
        let mut of_key = Self {
            path: String::new(),
            violations: Vec::new(),
        };
        of_key.text(name, length, pattern, words, || None);
        let constraints: Vec<&str> = of_key
            .violations
            .iter()
            .filter_map(|violation| violation.split_once(": "))
            .map(|(_, constraint)| constraint)
            .collect();
        if !constraints.is_empty() {
            let shown = (!hidden && !shape.sensitive).then(|| cut(name));
            let constraints = constraints.join(", ");
            self.violated(
                shown,
                &format!("Map keys must satisfy constraint: [{constraints}]"),
            );
        }
    }

    fn text(
        &mut self,
        text: &str,
        length: Length,
        pattern: Option<&Pattern>,
        words: &[&str],
        shown: impl Fn() -> Option<String>,
    ) {
        if !words.is_empty() && !words.contains(&text) {
            let words = words.join(", ");
            self.violated(
                shown(),
                &format!("Member must satisfy enum value set: [{words}]"),
            );
        }
        if let Some(pattern) = pattern.filter(|pattern| !pattern.matches(text)) {
            let pattern = pattern.as_str();
            self.violated(
                shown(),
                &format!("Member must satisfy regular expression pattern: {pattern}"),
            );
        }
        self.length(length, text.chars().count() as u64, shown);
    }

    fn length(&mut self, bounds: Length, length: u64, shown: impl Fn() -> Option<String>) {
        if length < bounds.min {
            let min = bounds.min;
            let constraint = format!("Member must have length greater than or equal to {min}");
            self.violated(shown(), &constraint);
        }
        if length > bounds.max {
            let max = bounds.max;
            let constraint = format!("Member must have length less than or equal to {max}");
            self.violated(shown(), &constraint);
        }
    }

    fn range<T: PartialOrd + Display>(
        &mut self,
        min: T,
        max: T,
        number: T,
        shown: impl Fn() -> Option<String>,
    ) {
        if number < min {
            let constraint = format!("Member must have value greater than or equal to {min}");
            self.violated(shown(), &constraint);
        }
        if number > max {
            let constraint = format!("Member must have value less than or equal to {max}");
            self.violated(shown(), &constraint);
        }
    }

    fn null(&mut self) {
        self.push("Value null", "Member must not be null");
    }

    fn violated(&mut self, shown: Option<String>, constraint: &str) {
        match shown {
            Some(value) => self.push(&format!("Value '{value}'"), constraint),
            None => self.push("Value", constraint),
        }
    }

    fn push(&mut self, value: &str, constraint: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            let path = &self.path;
            self.violations.push(format!(
                "{value} at '{path}' failed to satisfy constraint: {constraint}"
            ));
        }
    }

    /// Checks something one step further down.
    fn under(&mut self, step: Step<'_>, check: impl FnOnce(&mut Self)) {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        match step {
            Step::Member(name) => {
                let mut chars = name.chars();
                self.path
                    .extend(chars.next().map(|first| first.to_ascii_lowercase()));
                self.path.push_str(chars.as_str());
            }
            Step::Element(number) => self.path.push_str(&format!("{number}.member")),
            Step::Entry(name) => {
                self.path.push_str(name);
                self.path.push_str(".member");
            }
        }
        check(self);
        self.path.truncate(len);
    }
}

/// A value as AWS shows it; `None` for what is not shown: blobs, secrets, structures.
fn show(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) => Some(cut(text)),
        Value::Integer(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        Value::List(values) => {
            let shown: Option<Vec<String>> = values.iter().take(SHOWN_LEN_MAX).map(show).collect();
            Some(cut(&format!("[{}]", shown?.join(", "))))
        }
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_LEN_MAX).collect()
}
