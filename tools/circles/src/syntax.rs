//! Collects the imports in the source of one module, as they are written.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Attribute, Field, ImplItem, Item, ItemUse, Macro, Meta, Path, TraitItem, UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// One name that a `use` declaration brings into a module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Use {
    /// The name that the declaration adds to the module, or `None` for a `*`.
    pub(crate) name: Option<String>,
    /// The imported path. For a `*`, this is the path of the module that
    /// contains the imported items.
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// A path in code, outside a `use` declaration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reference {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// Returns all imports of a module's items. The result leaves out the imports
/// of inner modules and of code that is compiled only for tests.
pub(crate) fn imports(items: &[Item]) -> (Vec<Use>, Vec<Reference>) {
    let mut found = Found::default();
    items.iter().for_each(|item| found.visit_item(item));
    (found.uses, found.references)
}

/// Returns the name of an item that a module defines. Returns `None` for
/// modules, imports, items without a name, and items that are compiled only for
/// tests.
pub(crate) fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    (!is_for_tests(attributes(item))).then(|| ident.to_string())
}

/// Returns whether an item with the given attributes is compiled only for
/// tests: `#[test]`, `#[cfg(test)]`, or `#[cfg(all(…))]` with `test` in it.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<Meta>()
                    .is_ok_and(|condition| implies_test(&condition)))
    })
}

fn implies_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(implies_test)),
        _ => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Found {
    uses: Vec<Use>,
    references: Vec<Reference>,
}

impl Found {
    fn add_use(&mut self, tree: &UseTree, before: &[String]) {
        let path = |last: &Ident| [before, &[last.to_string()]].concat();
        let (name, path, at) = match tree {
            UseTree::Path(tree) => return self.add_use(&tree.tree, &path(&tree.ident)),
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.add_use(tree, before));
            }
            UseTree::Glob(tree) => (None, before.to_vec(), tree.star_token.span),
            UseTree::Name(tree) => {
                let ident = &tree.ident;
                let (name, path) = match ident == "self" {
                    // The path `a::{self}` means `a`.
                    true => (before.last().cloned(), before.to_vec()),
                    false => (Some(ident.to_string()), path(ident)),
                };
                (name, path, ident.span())
            }
            UseTree::Rename(tree) => {
                let path = match tree.ident == "self" {
                    true => before.to_vec(),
                    false => path(&tree.ident),
                };
                (Some(tree.rename.to_string()), path, tree.ident.span())
            }
        };
        let line = at.start().line;
        self.uses.push(Use { name, path, line });
    }

    /// Adds the paths in tokens that `syn` does not parse, such as the
    /// arguments of a macro or an attribute.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    // Two colons continue a path. Any other token ends the
                    // path, and so does a single colon, as in `name: value`.
                    if colons != 2 {
                        self.add_path(std::mem::take(&mut path), line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.add_path(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_path(path, line);
    }

    fn add_path(&mut self, path: Vec<String>, line: usize) {
        if !path.is_empty() {
            self.references.push(Reference { path, line });
        }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_module = matches!(item, Item::Mod(_));
        if !is_module && !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Fn(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let line = first.ident.span().start().line;
            let names = path.segments.iter().map(|it| it.ident.to_string());
            self.add_path(names.collect(), line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.add_tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }
}
