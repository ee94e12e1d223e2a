//! Reads the modules of a crate, as the crate's files declare them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use syn::Item;

use crate::syntax::{self, Reference, Use};

/// The reason why a crate's source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the crate cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that cannot be read.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file of the crate is not valid Rust.
    #[error("{}:{}: {source}", path.display(), source.span().start().line)]
    Syntax {
        /// The file that is not valid Rust.
        path: PathBuf,
        /// The parser's error, with the place where the parser stopped.
        source: syn::Error,
    },
    /// A declared module has no file.
    #[error("{}: there is no file for `mod {module};`", path.display())]
    NoFile {
        /// The file that declares the module.
        path: PathBuf,
        /// The name of the module that has no file.
        module: String,
    },
}

/// A module's index in [`Tree::modules`]. The crate's root has index 0.
pub(crate) type Index = usize;

/// All modules of a crate, except modules that are compiled only for tests.
#[derive(Debug, Default)]
pub struct Tree {
    pub(crate) modules: Vec<Module>,
}

#[derive(Debug)]
pub(crate) struct Module {
    /// The module's path, such as `crate::a::b`, for messages.
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    /// The module that contains this module, or `None` for the crate's root.
    pub(crate) parent: Option<Index>,
    pub(crate) children: BTreeMap<String, Index>,
    /// The names of the items that the module defines itself.
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    pub(crate) references: Vec<Reference>,
}

impl Tree {
    /// Reads a crate from its root file, and the files of its modules.
    ///
    /// # Errors
    /// Returns an error if a file is missing, cannot be read, or is not valid
    /// Rust.
    pub fn read(root: &Path) -> Result<Self, Error> {
        let mut tree = Self::default();
        let folder = root.parent().unwrap_or(Path::new("."));
        let place = Place {
            file: root.to_owned(),
            children_in: folder.to_owned(),
        };
        let items = parse(root)?;
        tree.add("crate", None, &place, &items)?;
        Ok(tree)
    }

    fn add(
        &mut self,
        path: &str,
        parent: Option<Index>,
        place: &Place,
        items: &[Item],
    ) -> Result<Index, Error> {
        let index = self.modules.len();
        let (uses, references) = syntax::imports(items);
        self.modules.push(Module {
            path: path.to_owned(),
            file: place.file.clone(),
            parent,
            children: BTreeMap::new(),
            items: items.iter().filter_map(syntax::name).collect(),
            uses,
            references,
        });
        for item in items {
            let Item::Mod(declared) = item else {
                continue;
            };
            if syntax::is_for_tests(&declared.attrs) {
                continue;
            }
            let name = declared.ident.to_string();
            let child_path = format!("{path}::{name}");
            let child = match &declared.content {
                Some((_, items)) => {
                    let place = Place {
                        file: place.file.clone(),
                        children_in: place.children_in.join(&name),
                    };
                    self.add(&child_path, Some(index), &place, items)?
                }
                None => {
                    let place = place.of_child(&name)?;
                    let items = parse(&place.file)?;
                    self.add(&child_path, Some(index), &place, &items)?
                }
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }
}

/// The file with a module's source, and the folder with the files of its child
/// modules.
struct Place {
    file: PathBuf,
    children_in: PathBuf,
}

impl Place {
    fn of_child(&self, name: &str) -> Result<Self, Error> {
        let children_in = self.children_in.join(name);
        let candidates = [
            self.children_in.join(format!("{name}.rs")),
            children_in.join("mod.rs"),
        ];
        let file = candidates.into_iter().find(|file| file.exists());
        let file = file.ok_or_else(|| Error::NoFile {
            path: self.file.clone(),
            module: name.to_owned(),
        })?;
        Ok(Self { file, children_in })
    }
}

fn parse(path: &Path) -> Result<Vec<Item>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    let file = syn::parse_file(&text).map_err(|source| Error::Syntax {
        path: path.to_owned(),
        source,
    })?;
    Ok(file.items)
}
