//! Modules of a crate that import each other.
//!
//! ```text
//! root file ─▶ Tree (modules, imports, paths) ─▶ names resolved ─▶ imports between siblings ─▶ Circle
//! ```
//!
//! In: the root file of a crate. Out: every set of sibling modules that import
//! each other in a circle, with the imports that make the circle. A module
//! counts together with everything inside it. A module and the module that
//! contains it are not siblings, so a child may import from its parent.
//!
//! What counts as an import: a `use` declaration, and a path in code, in an
//! attribute or in the arguments of a macro. A re-export counts as an import
//! from the module that defines the item. Code that is compiled for tests only
//! does not count.
//!
//! Why not cargo-modules: its `--acyclic` reports a child that imports from its
//! parent as a circle, and it needs rust-analyzer, which takes minutes to
//! build. This crate only parses the source and knows no types: a method's
//! return type, for example, is no import.

mod circle;
mod names;
mod syntax;
mod tree;

pub use circle::{Circle, Import, circles};
pub use tree::{Error, Tree};
