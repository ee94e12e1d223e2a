//! Writes the chart's CustomResourceDefinitions into the folder given as
//! argument. Without an argument, the program writes them into the chart in
//! this repository.

use std::{env, fs, io, path::PathBuf};

use crds::crd;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/ipvs-operator/crds"),
        PathBuf::from,
    );
    for definition in crd::definitions() {
        let unnamed = crd::unnamed_defaults(&definition);
        if !unnamed.is_empty() {
            let kind = definition.spec.names.kind;
            let fields = unnamed.join("; ");
            return Err(io::Error::other(format!(
                "the doc comments of these fields of {kind} must name their defaults: {fields}"
            )));
        }
    }
    fs::create_dir_all(&folder)?;
    for definition in crd::definitions() {
        fs::write(
            folder.join(crd::file_name(&definition)),
            crd::yaml(&definition),
        )?;
    }
    Ok(())
}
