//! Reads and writes the host's sysctls as files below /proc/sys.

use std::{fs, io, path::PathBuf};

/// The sysctl that turns on IPv6 forwarding for the whole host.
pub const ALL_IPV6_FORWARDING: &str = "net.ipv6.conf.all.forwarding";
const IPV6_INTERFACES: &str = "net.ipv6.conf";

/// The boundary to the host's sysctls, kept small so that tests can replace it
/// with a model. Sysctls are named as in sysctl(8), such as
/// `net.ipv4.vs.expire_nodest_conn`. A dot in an interface's name is written as
/// a slash, as in `net.ipv4.conf.eth0/100.forwarding`.
pub trait Sysctls {
    /// Reads the value of a sysctl, without the line break at its end.
    ///
    /// # Errors
    /// Returns an error if the sysctl does not exist or cannot be read.
    fn read(&mut self, name: &str) -> io::Result<String>;

    /// Sets the value of a sysctl.
    ///
    /// # Errors
    /// Returns an error if the sysctl cannot be written or the kernel refuses
    /// the value.
    fn write(&mut self, name: &str, value: &str) -> io::Result<()>;

    /// Lists the entries below a sysctl name. For example, the entries below
    /// `net.ipv6.conf` are the interfaces, `all` and `default`, each spelled as
    /// in a sysctl's name.
    ///
    /// # Errors
    /// Returns an error if the name does not exist or cannot be read.
    fn list(&mut self, name: &str) -> io::Result<Vec<String>>;
}

/// Returns an interface's name in the spelling of a sysctl's name.
pub fn spelled(interface: &str) -> String {
    interface.replace('.', "/")
}

/// Sets one sysctl and leaves all other sysctls unchanged. Writing
/// `net.ipv6.conf.all.forwarding` also changes `forwarding` of every interface,
/// present and future. Writing 0 to `net.ipv6.conf.all.forwarding` also changes
/// `force_forwarding` (`net/ipv6/addrconf.c`, `addrconf_forward_change`). The
/// function immediately restores all other sysctls that the write changed.
///
/// # Errors
/// Returns an error if the sysctl cannot be written or another sysctl cannot be
/// restored.
pub fn set(sysctls: &mut dyn Sysctls, name: &str, value: &str) -> io::Result<()> {
    if name != ALL_IPV6_FORWARDING {
        return sysctls.write(name, value);
    }
    let before = changed_with_it(sysctls)?;
    sysctls.write(name, value)?;
    for (name, value) in before {
        // A sysctl that cannot be read is skipped, because its interface may
        // have disappeared in the meantime.
        if sysctls.read(&name).is_ok_and(|now| now != value) {
            sysctls.write(&name, &value)?;
        }
    }
    Ok(())
}

/// Returns the sysctls that [`set`] restores after it wrote
/// `net.ipv6.conf.all.forwarding`, with their current values.
///
/// # Errors
/// Returns an error if the interfaces cannot be listed.
pub fn changed_with_it(sysctls: &mut dyn Sysctls) -> io::Result<Vec<(String, String)>> {
    let interfaces = sysctls.list(IPV6_INTERFACES)?.into_iter();
    let names = interfaces
        .filter(|interface| interface != "all")
        .flat_map(|interface| {
            ["forwarding", "force_forwarding"]
                .map(|leaf| format!("{IPV6_INTERFACES}.{interface}.{leaf}"))
        });
    let found = names.filter_map(|name| {
        let value = sysctls.read(&name).ok()?;
        Some((name, value))
    });
    Ok(found.collect())
}

/// The folder with the host's sysctls: /proc/sys, or the parent folder of a
/// writable mount of /proc/sys/net. Below the folder `net`, the kernel shows
/// the network namespace of the process that opens a file.
#[derive(Debug)]
pub struct SysctlFolder(pub PathBuf);

impl SysctlFolder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(swapped(name))
    }
}

/// Swaps dots and slashes in a sysctl's name, as sysctl(8) does.
fn swapped(text: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    text.chars().map(swap).collect()
}

impl Sysctls for SysctlFolder {
    fn read(&mut self, name: &str) -> io::Result<String> {
        let value = fs::read_to_string(self.path(name))?;
        Ok(value.trim_end().to_owned())
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        // The sysctl's file is never created, because only existing files are
        // sysctls.
        let mut file = fs::OpenOptions::new().write(true).open(self.path(name))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }

    fn list(&mut self, name: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(name))?;
        let names = entries.map(|entry| {
            let name = entry?.file_name();
            Ok(swapped(&name.to_string_lossy()))
        });
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_an_interfaces_name_is_a_slash_in_a_sysctls() {
        let folder = tempfile::tempdir().unwrap();
        let vlan = folder.path().join("net/ipv4/conf/eth0.100");
        fs::create_dir_all(&vlan).unwrap();
        fs::write(vlan.join("forwarding"), "0\n").unwrap();
        let mut sysctls = SysctlFolder(folder.path().to_owned());
        assert_eq!(sysctls.list("net.ipv4.conf").unwrap(), ["eth0/100"]);
        let name = format!("net.ipv4.conf.{}.forwarding", spelled("eth0.100"));
        assert_eq!(sysctls.read(&name).unwrap(), "0");
        sysctls.write(&name, "1").unwrap();
        assert_eq!(sysctls.read(&name).unwrap(), "1");
        let plain = sysctls.write("net.ipv4.conf.eth0.100.forwarding", "1");
        assert_eq!(plain.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
