//! The regular expressions of models.
use std::{fmt, sync::OnceLock};

use regex_lite::Regex;

/// A regular expression that a whole text has to match, as Java's `matches` reads it: `\w`, `\d` and
/// `\s` are ASCII's. Compiled when it is first asked.
pub(crate) struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// As the model has it.
    pub(super) fn as_str(&self) -> &'static str {
        self.text
    }

    /// Whether all of `text` matches. The generator leaves out what does not compile; were something
    /// like that here, nothing would match it.
    pub(super) fn matches(&self, text: &str) -> bool {
        let compile = || Regex::new(&format!("^(?:{})$", self.text)).ok();
        let compiled = self.compiled.get_or_init(compile);
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}
