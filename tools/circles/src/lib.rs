//! Finds modules of a crate that import each other.
//!
//! ```text
//! root file ─▶ Tree (modules, imports, paths) ─▶ names resolved ─▶ imports between siblings ─▶ Circle
//! ```
//!
//! Input: the root file of a crate. Output: every set of sibling modules that
//! import each other in a circle, with the imports that make the circle. The
//! imports of a module include the imports of its inner modules. A child module
//! and its parent are not siblings, so a child may import from its parent.
//!
//! An import is a `use` declaration, or a path in code, in an attribute or in
//! the arguments of a macro. An import of a re-exported item counts as an
//! import from the module that defines the item. Imports in code that is
//! compiled only for tests do not count.
//!
//! The tool cargo-modules does not fit, because its `--acyclic` reports a
//! circle if a child imports from its parent. Besides, cargo-modules needs
//! rust-analyzer, which takes minutes to build. This crate only parses the
//! source and knows no types. For example, the return type of a called method
//! does not count as an import.

mod circle;
mod names;
mod syntax;
mod tree;

pub use circle::{Circle, Import, circles};
pub use tree::{Error, Tree};
