//! A simulated host that accepts every operation and does nothing.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use agent::{
    claim::{Orders, Segments},
    host::{
        interface::{Interface, Mac},
        netlink::{LinkError, Links},
        surroundings::{KernelVersion, Surroundings},
        sysctls::Sysctls,
    },
};
use ipvs::{
    ActualService, ActualTable, Error, Failure, Info, Kernel, Op, ServiceKey, Timeouts, codec,
};

/// A simulated kernel whose table stays empty. The simulated kernel encodes
/// each operation as a netlink message, as for a real kernel, and reports
/// success.
#[derive(Default)]
pub(crate) struct Nothing {
    /// The total time that the simulated kernel spent encoding operations.
    pub(crate) encoding: Duration,
    bytes: Vec<u8>,
}

impl Kernel for Nothing {
    fn info(&mut self) -> Result<Info, Error> {
        Ok(Info {
            version: (1, 2, 1),
            connection_table_size: 4096,
        })
    }

    fn table(&mut self) -> Result<ActualTable, Error> {
        Ok(ActualTable::new())
    }

    fn service(&mut self, _: &ServiceKey) -> Result<Option<ActualService>, Error> {
        Ok(None)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        Ok(Timeouts::default())
    }

    fn set_timeouts(&mut self, _: Timeouts) -> Result<(), Error> {
        Ok(())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error> {
        let start = Instant::now();
        for op in ops {
            if self.bytes.len() > 64 * 1024 {
                self.bytes.clear();
            }
            codec::append_request(op, &mut self.bytes, Default::default());
        }
        self.encoding += start.elapsed();
        Ok(Vec::new())
    }
}

/// A simulated host without interfaces, where every sysctl has the value 1.
pub(crate) struct Nowhere;

impl Links for Nowhere {
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
        Ok(Vec::new())
    }

    fn add(&mut self, _: u32, _: IpAddr) -> Result<(), LinkError> {
        Ok(())
    }

    fn remove(&mut self, _: u32, _: IpAddr) -> Result<(), LinkError> {
        Ok(())
    }

    fn make_device(&mut self, _: &str) -> Result<(), LinkError> {
        Ok(())
    }

    fn remove_device(&mut self, _: &str) -> Result<(), LinkError> {
        Ok(())
    }

    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError> {
        Ok(Vec::new())
    }

    fn look_for_neighbor(&mut self, _: u32, _: IpAddr) -> Result<(), LinkError> {
        Ok(())
    }
}

impl Segments for Nowhere {
    fn order(&mut self, _: Orders) {}
}

impl Sysctls for Nowhere {
    fn read(&mut self, _: &str) -> io::Result<String> {
        Ok("1".to_owned())
    }

    fn write(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&mut self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl Surroundings for Nowhere {
    fn toward(&mut self, _: IpAddr) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn advertised(&mut self) -> io::Result<BTreeSet<u32>> {
        Ok(BTreeSet::new())
    }

    fn calls_packets_invalid(&mut self) -> bool {
        false
    }

    fn kernel(&mut self) -> Option<KernelVersion> {
        None
    }
}
