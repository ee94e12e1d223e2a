//! Writes the chart's README from the comments of its `values.yaml`.

use std::{error::Error, fs};

use e2e::{cluster::chart, values_page::values_page};

fn main() -> Result<(), Box<dyn Error>> {
    let values = fs::read_to_string(chart().join("values.yaml"))?;
    fs::write(chart().join("README.md"), values_page(&values)?)?;
    Ok(())
}
