//! Siblings that import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use crate::tree::{Error, Index, Tree};

/// Sibling modules that all import from each other, directly or by way of the
/// others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Circle {
    /// The module that they are in, as `crate::check`.
    pub parent: String,
    /// The names of the siblings.
    pub siblings: Vec<String>,
    /// All imports from one of them to another.
    pub imports: Vec<Import>,
}

/// One import from a module, or from a module inside it, to a sibling.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Import {
    /// The sibling that imports.
    pub from: String,
    /// The sibling that defines what is imported.
    pub to: String,
    /// The file with the import.
    pub file: PathBuf,
    /// The import's line, from 1.
    pub line: usize,
    /// What is imported, as it is written there.
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

/// The siblings, and a line for each import.
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
/// When its source cannot be read.
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
    /// The imports of one module, each with the module in which it is one from
    /// a sibling to another.
    fn imports_of(&self, index: Index) -> Vec<(Index, Import)> {
        let module = &self.modules[index];
        let uses = module.uses.iter();
        let uses = uses.map(|it| (&it.path, it.line, self.find(index, &it.path)));
        let references = module.references.iter().map(|it| {
            let found = self.find(index, &it.path);
            // The `use` declaration of its first name says the same.
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

    /// The two siblings in which two modules are, and the module in which those
    /// are. None where one of the two contains the other.
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

    /// A module and everything that contains it, from the crate's root on.
    fn ancestry(&self, module: Index) -> Vec<Index> {
        let parent = |index: &Index| self.modules[*index].parent;
        let mut ancestry: Vec<_> = std::iter::successors(Some(module), parent).collect();
        ancestry.reverse();
        ancestry
    }
}

/// The sets of names in which each reaches each by imports.
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
