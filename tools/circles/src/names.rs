//! Finds the module to which a path leads.

use std::collections::HashSet;

use crate::tree::{Index, Tree};

/// The module or item to which a path leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// The path leads to a module of the crate.
    Module(Index),
    /// The path leads to an item, or to a part of an item. The module with this
    /// index defines the item.
    ItemOf(Index),
}

impl Found {
    /// Returns the module to which the path leads. For an item, returns the
    /// module that defines the item.
    pub(crate) fn module(self) -> Index {
        match self {
            Self::Module(module) | Self::ItemOf(module) => module,
        }
    }
}

/// The names that a search has already looked up, each with its module. An
/// import may name itself, as in `use serde;`, and two imports may name each
/// other. The search looks up each name only once. Otherwise the search might
/// never end.
type Asked = HashSet<(Index, String)>;

impl Tree {
    /// Returns the target of a path in a module. Returns `None` for a path into
    /// another crate and for a name that is local to a function.
    pub(crate) fn find(&self, module: Index, path: &[String]) -> Option<Found> {
        self.find_path(module, path, &mut Asked::new())
    }

    /// Looks for a `use` declaration of the module that imports `name`, and
    /// returns the imported module or item.
    pub(crate) fn imported(&self, module: Index, name: &str) -> Option<Found> {
        let mut uses = self.modules[module].uses.iter();
        let import = uses.find(|import| import.name.as_deref() == Some(name))?;
        self.find(module, &import.path)
    }

    fn find_path(&self, module: Index, path: &[String], asked: &mut Asked) -> Option<Found> {
        let mut at = module;
        for (position, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => at = self.modules[at].parent?,
                name => match self.find_name(at, name, asked) {
                    Some(Found::Module(child)) => at = child,
                    Some(item) => return Some(item),
                    None if position == 0 => return None,
                    // The search does not find a name that a macro defines, or
                    // that the module re-exports from another crate.
                    None => return Some(Found::ItemOf(at)),
                },
            }
        }
        Some(Found::Module(at))
    }

    fn find_name(&self, module: Index, name: &str, asked: &mut Asked) -> Option<Found> {
        if !asked.insert((module, name.to_owned())) {
            return None;
        }
        let here = &self.modules[module];
        if let Some(child) = here.children.get(name) {
            return Some(Found::Module(*child));
        }
        if here.items.contains(name) {
            return Some(Found::ItemOf(module));
        }
        let imports = here.uses.iter();
        let mut named = imports.filter(|import| import.name.as_deref() == Some(name));
        if let Some(import) = named.next() {
            return self.find_path(module, &import.path, asked);
        }
        let globs = here.uses.iter().filter(|import| import.name.is_none());
        globs
            .filter_map(|glob| match self.find_path(module, &glob.path, asked)? {
                Found::Module(of) if of != module => self.find_name(of, name, asked),
                _ => None,
            })
            .next()
    }
}
