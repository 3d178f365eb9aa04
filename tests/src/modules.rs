//! The files of a crate and which of them use which.
//!
//! A node is a file; the modules written inside it belong to it. A file uses another if its own code, tests aside,
//! names a thing that the other defines, wherever the name was imported from: a path is followed through children,
//! imports, re-exports and globs to the file of the definition. So
//! - declaring a child and re-exporting its things is no use by itself, and neither is `use super::Thing` of a thing
//!   that the parent merely re-exports: it is a use of the file that defines it;
//! - a child that names what its parent defines, while the parent names what the child defines, is a circle.
//!
//! What it does not see: methods (who calls `x.open()` is not known to use the file of `open`), names that a macro
//! makes (a path to one counts as a use of the file it should be in), and code under `#[cfg(test)]`, which is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources;

/// Longest chain of imports that is followed. A longer one is an import of itself.
const CHAIN_MAX: usize = 24;

/// Files that use one another, directly or through one another: more than one, sorted, as paths below `src`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// The files.
    pub files: Vec<String>,
    /// Who names what of whom: file, file, names.
    pub because: Vec<(String, String, BTreeSet<String>)>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "circle of {}", self.files.join(", "))?;
        for (from, to, names) in &self.because {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            writeln!(f, "  {from} names of {to}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Every circle between the files of a crate, whose top file (`lib.rs` or `main.rs`) and sources are in `src`.
///
/// # Errors
/// If a file cannot be read or parsed, or no module declares it.
pub fn circles(src: &Path) -> anyhow::Result<Vec<Circle>> {
    let modules = Modules::load(src)?;
    let uses = modules.uses();
    let reach: BTreeMap<usize, BTreeSet<usize>> = uses
        .keys()
        .map(|&from| {
            let mut reached = BTreeSet::new();
            let mut open = vec![from];
            while let Some(file) = open.pop() {
                for &next in uses.get(&file).into_iter().flat_map(BTreeMap::keys) {
                    if reached.insert(next) {
                        open.push(next);
                    }
                }
            }
            (from, reached)
        })
        .collect();
    let mut circles = Vec::new();
    let mut done = BTreeSet::new();
    for (&file, reached) in &reach {
        if !reached.contains(&file) || !done.insert(file) {
            continue;
        }
        let round: BTreeSet<usize> = reached
            .iter()
            .copied()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(&file)))
            .collect();
        done.extend(&round);
        let name = |file: usize| modules.name(file);
        let mut because = Vec::new();
        for &from in &round {
            for (&to, names) in uses[&from].iter().filter(|(to, _)| round.contains(to)) {
                because.push((name(from), name(to), names.clone()));
            }
        }
        let mut files: Vec<_> = round.into_iter().map(name).collect();
        files.sort();
        circles.push(Circle { files, because });
    }
    circles.sort_by(|a, b| a.files.cmp(&b.files));
    Ok(circles)
}

/// A module, in a file of its own or inside another's.
#[derive(Default)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Whether a macro declares it.
    by_macro: bool,
    defined: BTreeSet<String>,
    /// What each imported or re-exported name stands for.
    imported: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path that its code names.
    named: Vec<Vec<String>>,
}

struct Modules {
    src: PathBuf,
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    /// Modules of tests, without `.rs`.
    tests: Vec<PathBuf>,
}

impl Modules {
    fn load(src: &Path) -> anyhow::Result<Self> {
        let top = ["lib.rs", "main.rs"].map(|name| src.join(name));
        let top = top
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("no top file in {}", src.display()))?;
        let mut all = Self {
            src: src.to_path_buf(),
            files: Vec::new(),
            modules: vec![Module::default()],
            tests: Vec::new(),
        };
        all.read(0, top, src)?;
        // What a macro declares is in no `mod` item; its place says where it belongs.
        let mut left = Vec::new();
        for path in sources(src)? {
            let mut names = path.strip_prefix(src)?.with_extension("");
            if names.ends_with("mod") {
                names.pop();
            }
            left.push((names.components().count(), names, path));
        }
        // Parents first: reading one may find the children.
        left.sort();
        for (_, names, path) in left {
            if all.files.contains(&path)
                || all
                    .tests
                    .iter()
                    .any(|test| src.join(&names).starts_with(test))
            {
                continue;
            }
            let mut parent = 0;
            let mut names: Vec<_> = names
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            let name = names.pop().context("a file has a name")?;
            for name in &names {
                match all.modules[parent].children.get(name) {
                    Some(&child) => parent = child,
                    None => bail!("{} is in no module", path.display()),
                }
            }
            let child = all.child(parent, &name);
            all.modules[child].by_macro = true;
            let below = src
                .join(names.iter().collect::<PathBuf>())
                .join(name.as_str());
            all.read(child, path, &below)?;
        }
        Ok(all)
    }

    /// A file as a path below `src`.
    fn name(&self, file: usize) -> String {
        let path = &self.files[file];
        path.strip_prefix(&self.src)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    }

    fn child(&mut self, parent: usize, name: &str) -> usize {
        let child = self.modules.len();
        self.modules.push(Module {
            file: self.modules[parent].file,
            parent: Some(parent),
            ..Module::default()
        });
        self.modules[parent].children.insert(name.to_owned(), child);
        child
    }

    /// Reads the file of a module; those of its children are in `below`.
    fn read(&mut self, module: usize, path: PathBuf, below: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let syntax = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        self.modules[module].file = self.files.len();
        self.files.push(path);
        self.walk(module, &syntax.items, below)
    }

    fn walk(&mut self, module: usize, items: &[syn::Item], below: &Path) -> anyhow::Result<()> {
        for item in items {
            if let syn::Item::Mod(declared) = item {
                let name = declared.ident.to_string();
                let below = below.join(&name);
                if is_test(&declared.attrs) {
                    self.tests.push(below);
                    continue;
                }
                let child = self.child(module, &name);
                if let Some((_, items)) = &declared.content {
                    self.walk(child, items, &below)?;
                    continue;
                }
                let path = [below.with_extension("rs"), below.join("mod.rs")]
                    .into_iter()
                    .find(|path| path.exists())
                    .with_context(|| format!("no file for module {}", below.display()))?;
                self.read(child, path, &below)?;
            } else {
                Reader(&mut self.modules[module]).visit_item(item);
            }
        }
        Ok(())
    }

    /// For each file the files that it uses, and what it names of them.
    fn uses(&self) -> BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>> {
        let mut uses = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
        for (at, module) in self.modules.iter().enumerate() {
            for path in &module.named {
                if let [name] = path.as_slice()
                    && self.is_no_use(module, name)
                {
                    continue;
                }
                let Some((used, name)) = self.resolve(at, path, CHAIN_MAX) else {
                    continue;
                };
                let used = self.modules[used].file;
                if used != module.file {
                    let names = uses.entry(module.file).or_default();
                    names.entry(used).or_default().insert(name);
                }
            }
        }
        uses
    }

    /// A keyword alone (as in a macro's `pub(super)`), or the name that a macro declares a child by.
    fn is_no_use(&self, module: &Module, name: &str) -> bool {
        ["crate", "self", "super"].contains(&name)
            || module
                .children
                .get(name)
                .is_some_and(|&child| self.modules[child].by_macro)
    }

    /// The module that defines what `path` names in `module`, and its name there; `None` if it is of another crate.
    fn resolve(&self, module: usize, path: &[String], chain: usize) -> Option<(usize, String)> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => 0,
            "self" => module,
            "super" => self.modules[module].parent?,
            _ => return self.find(module, path, chain),
        };
        if rest.first().is_some_and(|next| next == "super") {
            return self.resolve(start, rest, chain);
        }
        self.find(start, rest, chain).or_else(|| {
            // Made by a macro, in the file that the path leads to.
            let mut at = start;
            for name in rest {
                match self.modules[at].children.get(name) {
                    Some(&child) => at = child,
                    None => break,
                }
            }
            Some((at, rest.join("::")))
        })
    }

    fn find(&self, module: usize, path: &[String], chain: usize) -> Option<(usize, String)> {
        let chain = chain.checked_sub(1)?;
        let here = &self.modules[module];
        let Some((first, rest)) = path.split_first() else {
            return Some((module, "the module".to_owned()));
        };
        if let Some(&child) = here.children.get(first) {
            return self.find(child, rest, chain);
        }
        if here.defined.contains(first) {
            return Some((module, first.clone()));
        }
        if let Some(imported) = here.imported.get(first) {
            let path: Vec<_> = imported.iter().chain(rest).cloned().collect();
            return self.resolve(module, &path, chain);
        }
        here.globs.iter().find_map(|glob| {
            let (from, _) = self.resolve(module, glob, chain)?;
            (from != module)
                .then(|| self.find(from, path, chain))
                .flatten()
        })
    }
}

/// Whether something is compiled for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|attribute| attribute.meta.require_list().ok())
        .any(|list| {
            let mut tokens = list.tokens.clone().into_iter();
            match tokens.next() {
                Some(TokenTree::Ident(first)) if first == "test" => true,
                Some(TokenTree::Ident(first)) if first == "all" => match tokens.next() {
                    Some(TokenTree::Group(all)) => all
                        .stream()
                        .into_iter()
                        .any(|token| matches!(token, TokenTree::Ident(one) if one == "test")),
                    _ => false,
                },
                _ => false,
            }
        })
}

/// Gathers what the code of a module defines, imports and names.
struct Reader<'a>(&'a mut Module);

impl Reader<'_> {
    fn define(&mut self, name: &syn::Ident) {
        self.0.defined.insert(name.to_string());
    }

    fn import(&mut self, tree: &syn::UseTree, mut path: Vec<String>, is_export: bool) {
        match tree {
            syn::UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.import(&step.tree, path, is_export);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path.clone(), is_export);
                }
            }
            syn::UseTree::Glob(_) => self.0.globs.push(path),
            syn::UseTree::Name(name) => self.import_as(path, &name.ident, None, is_export),
            syn::UseTree::Rename(name) => {
                self.import_as(path, &name.ident, Some(&name.rename), is_export);
            }
        }
    }

    fn import_as(
        &mut self,
        mut path: Vec<String>,
        name: &syn::Ident,
        renamed: Option<&syn::Ident>,
        is_export: bool,
    ) {
        // `a::{self}` is `a`.
        if name != "self" {
            path.push(name.to_string());
        }
        let alias = renamed
            .map(ToString::to_string)
            .or_else(|| path.last().cloned());
        if !is_export {
            self.0.named.push(path.clone());
        }
        if let Some(alias) = alias.filter(|alias| *alias != "_") {
            self.0.imported.entry(alias).or_insert(path);
        }
    }

    /// The paths in what a macro is given: identifiers with `::` between them.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut after_dot = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.0.named.push(std::mem::take(&mut path));
                    }
                    if !after_dot {
                        path.push(ident.to_string());
                    }
                    (colons, after_dot) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.0.named.push(std::mem::take(&mut path));
                    colons = 0;
                    after_dot = matches!(&other, TokenTree::Punct(p) if p.as_char() == '.');
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        self.0.named.push(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item;
        let (attributes, name) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Impl(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        if let Some(name) = name {
            self.define(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        if item.leading_colon.is_none() {
            self.import(&item.tree, Vec::new(), is_export);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|s| s.ident.to_string());
            self.0.named.push(names.collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.scan(item.tokens.clone());
    }

    /// Who may see something is no use of it.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The circles of a crate of these files.
    fn of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let src = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = src.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let circles = circles(src.path()).unwrap();
        circles.into_iter().map(|circle| circle.files).collect()
    }

    #[test]
    fn files_that_import_from_one_another_are_a_circle() {
        let found = of(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f() { crate::c::g() }"),
            ("c.rs", "pub fn g() { println!(\"{}\", super::a::A::x()) }"),
            ("d.rs", "use crate::{a::A, b}; fn f(_: A, _: b::B) {}"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn declaring_and_re_exporting_children_is_no_use() {
        let found = of(&[
            ("lib.rs", "mod a; pub use a::A; pub use a::parts::*;"),
            ("a/mod.rs", "pub mod parts; mod x; pub use x::X as A;"),
            ("a/parts.rs", "use super::A; pub struct P(A);"),
            (
                "a/x.rs",
                "pub struct X(Box<dyn Fn()>); pub(super) enum E {}",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_child_that_uses_its_parents_things_while_the_parent_uses_its_own_is_a_circle() {
        let child = ("a/child.rs", "use super::*; pub fn f(_: A) {}");
        let parent = "mod child; pub struct A; fn g() { child::f(A) }";
        assert_eq!(
            of(&[("lib.rs", "mod a;"), ("a.rs", parent), child]),
            [["a.rs", "a/child.rs"]]
        );
        let parent = "mod child; pub use child::f; pub struct A;";
        let found = of(&[("lib.rs", "mod a;"), ("a.rs", parent), child]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_re_exported_name_that_the_parent_uses_itself_counts() {
        let found = of(&[
            ("lib.rs", "mod a; pub use a::A; pub fn f() -> A { todo!() }"),
            ("a.rs", "pub struct A; fn g() { crate::f(); }"),
        ]);
        assert_eq!(found, [["a.rs", "lib.rs"]]);
    }

    #[test]
    fn tests_do_not_count_and_what_a_macro_declares_does() {
        let found = of(&[
            ("lib.rs", "mod a; macro_rules! m { () => {} } m!(b);"),
            (
                "a.rs",
                "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
            ),
            ("b.rs", "use crate::a::A; pub struct B(A);"),
        ]);
        assert!(found.is_empty(), "{found:?}");
        let found = of(&[
            ("lib.rs", "mod a; macro_rules! m { () => {} } m!(b);"),
            ("a.rs", "pub struct A(crate::b::B);"),
            ("b.rs", "use crate::a::A; pub struct B(A);"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]]);
    }
}
