//! A definition of an older version, as after an upgrade of the programs alone.

use super::{value, workspace};
use crate::control::{kubectl, try_kubectl};

/// The plural names of the kinds that the chart defines.
pub const KINDS: [&str; 5] = [
    "directorgroupmembers",
    "directorgroups",
    "directors",
    "ipvsvirtualservices",
    "realservers",
];

/// Replaces all definitions by those of the last release, as a first install of
/// that release leaves them. They have no schema number.
///
/// # Panics
/// Panics if kubectl fails.
pub fn install_the_last_definitions() {
    for kind in KINDS {
        let file = workspace().join(format!("crds/tests/released/{kind}.yaml"));
        kubectl(&["replace", "-f", &file.to_string_lossy()]);
    }
}

const DEFINITION: &str = "crd/directors.ipvs.dev";
const FIELD: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/sysctls";

/// A definition of Directors without the status field `sysctls`, like an older
/// version of the definition. Dropping an `OlderDefinition` adds the field
/// again.
#[derive(Debug)]
pub struct OlderDefinition {
    field: String,
}

impl OlderDefinition {
    /// Removes the field from the definition.
    ///
    /// # Panics
    /// Panics if kubectl fails.
    #[must_use]
    pub fn begin() -> Self {
        let path = FIELD.replace("/0/", "[0]/").replace('/', ".");
        let field = value(DEFINITION, &path);
        let remove = format!(r#"[{{"op":"remove","path":"{FIELD}"}}]"#);
        kubectl(&["patch", DEFINITION, "--type=json", "-p", &remove]);
        Self { field }
    }
}

impl Drop for OlderDefinition {
    fn drop(&mut self) {
        let field = &self.field;
        let add = format!(r#"[{{"op":"add","path":"{FIELD}","value":{field}}}]"#);
        let added = try_kubectl(&["patch", DEFINITION, "--type=json", "-p", &add]);
        if !added.is_success() {
            eprintln!("the definition lacks its field: {}", added.stderr);
        }
    }
}
