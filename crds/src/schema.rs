//! The number of this program's schemas.

/// The annotation of a definition that has the number of its schema. Of two
/// definitions, the one with the higher number is newer.
pub const SCHEMA_ANNOTATION: &str = "ipvs.dev/schema";

/// The number of this program's schemas. Add one in the first change of any
/// definition after a release.
pub const SCHEMA: u32 = 2;
