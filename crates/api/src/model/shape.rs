//! Shapes: the types of requests and their bounds.
use super::pattern::Pattern;

/// No upper bound.
pub(crate) const ANY: u64 = u64::MAX;

/// A member of a structure.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name in a request.
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) shape: &'static Shape,
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
    pub(super) kind: Kind,
    pub(super) sensitive: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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
pub(super) struct Length {
    pub(super) min: u64,
    pub(super) max: u64,
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
