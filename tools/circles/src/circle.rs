//! Finds sibling modules that import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use crate::tree::{Error, Index, Tree};

/// A set of sibling modules that all import each other, directly or through
/// other siblings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Circle {
    /// The path of the module that contains the siblings, such as
    /// `crate::check`.
    pub parent: String,
    /// The names of the sibling modules in the circle.
    pub siblings: Vec<String>,
    /// All imports from one sibling to another.
    pub imports: Vec<Import>,
}

/// An import of an item that a sibling module defines. The import is in the
/// importing sibling itself or in a module inside it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Import {
    /// The name of the sibling that imports.
    pub from: String,
    /// The name of the sibling that defines the imported item.
    pub to: String,
    /// The file that contains the import.
    pub file: PathBuf,
    /// The line number of the import, counted from 1.
    pub line: usize,
    /// The imported path, as written in the file.
    pub path: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            file,
            line,
            path,
        } = self;
        write!(f, "{}:{line}: {from} → {to} ({path})", file.display())
    }
}

/// Prints the siblings, and a line for each import.
impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let siblings = self.siblings.join(", ");
        write!(f, "in {}, these import each other: {siblings}", self.parent)?;
        for import in &self.imports {
            write!(f, "\n  {import}")?;
        }
        Ok(())
    }
}

/// Finds the circles in a crate, given its root file.
///
/// # Errors
/// Returns an error if the crate's source cannot be read.
pub fn circles(root: &Path) -> Result<Vec<Circle>, Error> {
    let tree = Tree::read(root)?;
    let mut by_parent: BTreeMap<Index, BTreeSet<Import>> = BTreeMap::new();
    for module in 0..tree.modules.len() {
        for (parent, import) in tree.imports_of(module) {
            by_parent.entry(parent).or_default().insert(import);
        }
    }
    let found = by_parent.iter().flat_map(|(parent, imports)| {
        let parent = &tree.modules[*parent].path;
        among(imports)
            .into_iter()
            .map(|siblings| Circle {
                parent: parent.clone(),
                imports: imports
                    .iter()
                    .filter(|it| siblings.contains(&it.from) && siblings.contains(&it.to))
                    .cloned()
                    .collect(),
                siblings: siblings.into_iter().collect(),
            })
            .collect::<Vec<_>>()
    });
    Ok(found.collect())
}

impl Tree {
    /// Returns the imports of one module that connect two siblings. Each import
    /// comes with the index of the siblings' parent.
    fn imports_of(&self, index: Index) -> Vec<(Index, Import)> {
        let module = &self.modules[index];
        let uses = module.uses.iter();
        let uses = uses.map(|it| (&it.path, it.line, self.find(index, &it.path)));
        let references = module.references.iter().map(|it| {
            let found = self.find(index, &it.path);
            // If a `use` declaration imports the path's first name, the
            // declaration is already an import. The path is not counted again
            // if it leads to the same module.
            let known = it.path.first().and_then(|name| self.imported(index, name));
            let known = known.map(|known| known.module());
            let found = found.filter(|found| Some(found.module()) != known);
            (&it.path, it.line, found)
        });
        uses.chain(references)
            .filter_map(|(path, line, found)| {
                let (parent, from, to) = self.siblings(index, found?.module())?;
                let import = Import {
                    from,
                    to,
                    file: module.file.clone(),
                    line,
                    path: path.join("::"),
                };
                Some((parent, import))
            })
            .collect()
    }

    /// Finds the two siblings that contain the modules `from` and `to`. Returns
    /// the siblings' parent and the siblings' names. Returns `None` if one of
    /// the given modules contains the other.
    fn siblings(&self, from: Index, to: Index) -> Option<(Index, String, String)> {
        let (from, to) = (self.ancestry(from), self.ancestry(to));
        let mut both = from.iter().zip(&to).skip_while(|(from, to)| from == to);
        let (&from, &to) = both.next()?;
        let parent = self.modules[from].parent?;
        let name = |child| {
            let mut children = self.modules[parent].children.iter();
            let found = children.find(|(_, index)| **index == child);
            found.map(|(name, _)| name.clone())
        };
        Some((parent, name(from)?, name(to)?))
    }

    /// Returns all modules that contain a module, from the crate's root down to
    /// the module itself.
    fn ancestry(&self, module: Index) -> Vec<Index> {
        let parent = |index: &Index| self.modules[*index].parent;
        let mut ancestry: Vec<_> = std::iter::successors(Some(module), parent).collect();
        ancestry.reverse();
        ancestry
    }
}

/// Returns the sets of siblings that all reach each other through imports.
fn among(imports: &BTreeSet<Import>) -> Vec<BTreeSet<String>> {
    let mut reaches: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        reaches.entry(&import.from).or_default().insert(&import.to);
    }
    loop {
        let mut further = reaches.clone();
        for reached in further.values_mut() {
            let next: Vec<_> = reached
                .iter()
                .filter_map(|by| reaches.get(by))
                .flatten()
                .copied()
                .collect();
            reached.extend(next);
        }
        if further == reaches {
            break;
        }
        reaches = further;
    }
    let is_reached = |from: &str, to: &str| reaches.get(from).is_some_and(|it| it.contains(to));
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for name in reaches.keys() {
        let is_known = circles.iter().any(|circle| circle.contains(*name));
        if is_known || !is_reached(name, name) {
            continue;
        }
        let each = reaches.keys().filter(|other| {
            let other: &str = other;
            is_reached(name, other) && is_reached(other, name)
        });
        circles.push(each.map(|name| (*name).to_owned()).collect());
    }
    circles
}
