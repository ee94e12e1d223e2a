//! Reads and writes the host's sysctls, as files.

use std::{fs, io, path::PathBuf};

/// The edge to the host's sysctls, small, so that modelled ones can stand in.
/// Names are those of sysctl(8), such as `net.ipv4.vs.expire_nodest_conn`.
pub trait Sysctls {
    /// A value, without the end of its line.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    fn read(&mut self, name: &str) -> io::Result<String>;

    /// Sets a value.
    ///
    /// # Errors
    /// When it cannot be written, or the kernel refuses the value.
    fn write(&mut self, name: &str, value: &str) -> io::Result<()>;
}

/// /proc/sys, or a folder where it can be written. Below `net` the kernel shows
/// the network namespace of who opens a file.
#[derive(Debug)]
pub struct SysctlFolder(pub PathBuf);

impl SysctlFolder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.replace('.', "/"))
    }
}

impl Sysctls for SysctlFolder {
    fn read(&mut self, name: &str) -> io::Result<String> {
        let value = fs::read_to_string(self.path(name))?;
        Ok(value.trim_end().to_owned())
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        // Opened as it is: a file that is not there is no sysctl.
        let mut file = fs::OpenOptions::new().write(true).open(self.path(name))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}
