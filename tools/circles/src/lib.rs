//! Modules of a crate that import each other.
//!
//! ```text
//! root file ─▶ Tree (modules, imports, paths) ─▶ names resolved ─▶ imports between siblings ─▶ Circle
//! ```
//!
//! In: the root file of a crate. Out: every set of sibling modules that import
//! each other in a circle, with the imports that make it. A module counts
//! together with everything inside it. Modules that contain one another are no
//! siblings, so a child may import from its parent.
//!
//! What counts as an import: a `use` declaration, and a path in code, in an
//! attribute or in the arguments of a macro. A re-export counts as the module
//! that defines the item. What is compiled for tests only does not count.
//!
//! Why not cargo-modules: its `--acyclic` takes a child that imports from its
//! parent for a circle, and it brings rust-analyzer, which takes minutes to
//! build. This parses the source alone, and knows no types: what a method
//! returns, for example, is no import.

mod circle;
mod names;
mod syntax;
mod tree;

pub use circle::{Circle, Import, circles};
pub use tree::{Error, Tree};
