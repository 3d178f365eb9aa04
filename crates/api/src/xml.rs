//! Writing XML: elements and text, escaped. Reading is nobody's business here, the Query protocol
//! takes forms.
use std::fmt::Display;

use quick_xml::escape::escape;

/// A document being written.
pub(crate) struct Xml {
    out: String,
}

impl Xml {
    /// A document with the usual declaration.
    pub(crate) fn new() -> Self {
        Self {
            out: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
        }
    }

    /// An element of elements.
    pub(crate) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.start(name, None);
        content(self);
        self.end(name);
    }

    /// An element of elements, in a namespace.
    pub(crate) fn root(&mut self, name: &str, namespace: &str, content: impl FnOnce(&mut Self)) {
        self.start(name, Some(namespace));
        content(self);
        self.end(name);
    }

    /// An element of text. What XML 1.0 has no characters for becomes U+FFFD.
    pub(crate) fn text(&mut self, name: &str, text: impl Display) {
        let text: String = text
            .to_string()
            .chars()
            .map(|c| match c {
                '\t' | '\n' | '\r' => c,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '\u{fffd}',
                c => c,
            })
            .collect();
        self.start(name, None);
        // A bare carriage return is read as a line feed (XML 1.0, 2.11).
        self.out
            .push_str(&escape(text.as_str()).replace('\r', "&#13;"));
        self.end(name);
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        self.out
    }

    fn start(&mut self, name: &str, namespace: Option<&str>) {
        self.out.push('<');
        self.out.push_str(name);
        if let Some(namespace) = namespace {
            self.out.push_str(" xmlns=\"");
            self.out.push_str(namespace);
            self.out.push('"');
        }
        self.out.push('>');
    }

    fn end(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let mut xml = Xml::new();
        xml.root("a", "urn:x", |xml| xml.text("b", "<c>&\"\u{1}\u{e9}\r"));
        assert_eq!(
            xml.finish().lines().last().unwrap(),
            "<a xmlns=\"urn:x\"><b>&lt;c&gt;&amp;&quot;\u{fffd}\u{e9}&#13;</b></a>"
        );
    }
}
