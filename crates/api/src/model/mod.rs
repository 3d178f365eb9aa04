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
//! [`Operation::check_form`] holds a form of the Query protocols to the same tables.
//!
//! Promises: nothing of a value that the model calls sensitive, and nothing of a blob, is shown or is
//! copied into memory that is not wiped. Members the model does not know are skipped.
//!
//! Not promised: what a service checks beyond its model (a narrower range, the form of an ARN). That
//! is its front's to do, after this.
mod check;
mod form;
mod pattern;
mod read;
mod secret_text;
mod shape;

use self::shape::Kind;
pub(crate) use self::{
    form::WrongForm,
    pattern::Pattern,
    read::Value,
    secret_text::SecretText,
    shape::{ANY, Member, Shape},
};

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
        self.read(body).map(|_| ())
    }

    /// Checks a JSON body against the model, and keeps what was read.
    pub(crate) fn read<'a>(&self, body: &'a [u8]) -> Result<Members<'a>, Wrong> {
        let value = read::read(self.input, body).map_err(Wrong::Malformed)?;
        check::check(self.input, &value).map_err(Wrong::Invalid)?;
        Ok(match (self.input.kind, value) {
            (Kind::Structure(members), Value::Structure(values)) => Members { members, values },
            // An operation's input is a structure.
            _ => Members {
                members: &[],
                values: Vec::new(),
            },
        })
    }
}

/// The members of a request that was checked: each has the type that the model says.
pub(crate) struct Members<'a> {
    members: &'static [Member],
    values: Vec<Option<Value<'a>>>,
}

impl<'a> Members<'a> {
    /// The member of this name, once; `None` if it is not there, or null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let at = self.members.iter().position(|member| member.name == name);
        debug_assert!(at.is_some(), "the model has no member {name}");
        match self.values.get_mut(at?)?.take()? {
            Value::Null => None,
            value => Some(value),
        }
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
