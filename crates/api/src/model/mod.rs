//! Service models: what AWS says in public of the shapes of requests, and the check of a request
//! against them.
//!
//! The tables of a service are generated from its public model by `generate_model` of package `tests`,
//! and committed: each operation, its input's members, and their types, lengths, ranges, patterns and
//! enumerations. [`Operation::check`] reads a JSON body by them and says what is wrong in the
//! service's own words:
//!
//! - a value of another JSON type, a name given twice, what is not JSON: [`Wrong::Malformed`], which
//!   AWS calls `SerializationException`;
//! - values outside their bounds, up to ten of them, in the order of the members' names:
//!   [`Wrong::Invalid`], which AWS calls `ValidationException`.
//!
//! Promises: nothing of a value that the model calls sensitive, and nothing of a blob, is shown or is
//! copied into memory that is not wiped. Members the model does not know are skipped.
//!
//! Not promised: what a service checks beyond its model (a narrower range, the form of an ARN). That
//! is its front's to do, after this.
mod check;
mod pattern;
mod read;
mod secret_text;

pub(crate) use self::{pattern::Pattern, secret_text::SecretText};

/// No upper bound.
pub(crate) const ANY: u64 = u64::MAX;

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    /// What stands before the dot in `X-Amz-Target`.
    pub(crate) target_prefix: &'static str,
    /// All operations, in the order of their names.
    pub(crate) operations: &'static [Operation],
}

impl Service {
    /// The operation of this name.
    pub(crate) fn operation(&self, name: &str) -> Option<&'static Operation> {
        let found = self
            .operations
            .binary_search_by_key(&name, |operation| operation.name);
        found.ok().map(|at| &self.operations[at])
    }
}

/// An operation.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Its AWS name.
    pub(crate) name: &'static str,
    /// A structure.
    pub(crate) input: &'static Shape,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It does not parse, or a value has the wrong type.
    Malformed(String),
    /// Values are outside their bounds.
    Invalid(String),
}

impl Operation {
    /// Checks a JSON body against the model. An empty body is as `{}`.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), Wrong> {
        let value = read::read(self.input, body).map_err(Wrong::Malformed)?;
        check::check(self.input, &value).map_err(Wrong::Invalid)
    }
}

/// A member of a structure.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name in a request.
    name: &'static str,
    required: bool,
    shape: &'static Shape,
}

impl Member {
    /// A member that must be there.
    pub(crate) const fn required(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            required: true,
            shape,
        }
    }

    /// A member that may be left out, or be null.
    pub(crate) const fn optional(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            required: false,
            shape,
        }
    }
}

/// A shape: a type and its bounds.
#[derive(Debug)]
pub(crate) struct Shape {
    kind: Kind,
    sensitive: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Structure(&'static [Member]),
    List(&'static Shape, Length),
    Map {
        key: &'static Shape,
        value: &'static Shape,
        length: Length,
    },
    Text {
        length: Length,
        pattern: Option<&'static Pattern>,
        /// Empty if any text will do.
        words: &'static [&'static str],
    },
    Blob(Length),
    Integer {
        min: i64,
        max: i64,
    },
    Double {
        min: f64,
        max: f64,
    },
    Boolean,
    Timestamp,
}

/// Characters of a text, bytes of a blob, elements of a list, entries of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length {
    min: u64,
    max: u64,
}

impl Shape {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            sensitive: false,
        }
    }

    pub(crate) const fn structure(members: &'static [Member]) -> Self {
        Self::new(Kind::Structure(members))
    }

    pub(crate) const fn list(element: &'static Self, min: u64, max: u64) -> Self {
        Self::new(Kind::List(element, Length { min, max }))
    }

    pub(crate) const fn map(key: &'static Self, value: &'static Self, min: u64, max: u64) -> Self {
        let length = Length { min, max };
        Self::new(Kind::Map { key, value, length })
    }

    /// A text of `min` to `max` characters.
    pub(crate) const fn text(min: u64, max: u64) -> Self {
        Self::new(Kind::Text {
            length: Length { min, max },
            pattern: None,
            words: &[],
        })
    }

    /// A blob of `min` to `max` bytes.
    pub(crate) const fn blob(min: u64, max: u64) -> Self {
        Self::new(Kind::Blob(Length { min, max }))
    }

    pub(crate) const fn integer(min: i64, max: i64) -> Self {
        Self::new(Kind::Integer { min, max })
    }

    #[allow(dead_code)] // no service with one is generated yet
    pub(crate) const fn double(min: f64, max: f64) -> Self {
        Self::new(Kind::Double { min, max })
    }

    pub(crate) const fn boolean() -> Self {
        Self::new(Kind::Boolean)
    }

    /// Seconds since 1970.
    pub(crate) const fn timestamp() -> Self {
        Self::new(Kind::Timestamp)
    }

    /// The same, and all of a text has to match.
    pub(crate) const fn pattern(mut self, with: &'static Pattern) -> Self {
        if let Kind::Text { pattern, .. } = &mut self.kind {
            *pattern = Some(with);
        }
        self
    }

    /// The same, and a text has to be one of these.
    pub(crate) const fn words(mut self, of: &'static [&'static str]) -> Self {
        if let Kind::Text { words, .. } = &mut self.kind {
            *words = of;
        }
        self
    }

    /// The same, and it is never shown.
    pub(crate) const fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }
}

/// A [`Pattern`] in a place of its own.
macro_rules! regex {
    ($text:literal) => {{
        static PATTERN: $crate::model::Pattern = $crate::model::Pattern::new($text);
        &PATTERN
    }};
}
pub(crate) use regex;

#[cfg(test)]
mod tests;
