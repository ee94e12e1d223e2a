//! A model of the kernel's IPVS, for tests. The model keeps a table in memory.
//! Like `net/netfilter/ipvs/ip_vs_ctl.c`, the model applies operations to the
//! table, or refuses them with the kernel's error numbers. A test can make any
//! operation of the model fail. The module `model_kernel` exists only in tests
//! and with the feature `model-kernel`.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::{
    ActualService, ActualTable, DestinationConfig, DestinationKey, Errno, Error, Failure, Family,
    ForwardingMethod, Info, Kernel, Op, ServiceConfig, ServiceKey, Timeouts, TunnelKind,
};

/// A function that decides whether an operation fails; see
/// [`ModelKernel::fail_with`].
pub type FailWith = Box<dyn FnMut(&Op) -> Option<Errno> + Send>;

/// A model of the kernel's IPVS in memory.
pub struct ModelKernel {
    /// The model's IPVS table. A test changes `table` directly to imitate
    /// another program.
    pub table: ActualTable,
    /// The model's timeouts of idle connections.
    pub timeouts: Timeouts,
    /// The schedulers that the model has. By default, the model has all
    /// schedulers of Linux 6.1 except the scheduler `twos`.
    pub schedulers: BTreeSet<String>,
    /// The persistence engines that the model has, by default `sip`.
    pub persistence_engines: BTreeSet<String>,
    /// A function that the model kernel calls before each operation. If
    /// `fail_with` returns an error number, the model refuses the operation
    /// with that number.
    pub fail_with: Option<FailWith>,
    /// While `broken` is set, every call to the model fails with the error that
    /// `broken` returns, and changes nothing.
    pub broken: Option<fn() -> Error>,
    /// If `lose_replies` is true, the next [`apply`](Kernel::apply) applies its
    /// operations, then fails with [`Error::RepliesLost`] and resets
    /// `lose_replies`.
    pub lose_replies: bool,
    /// Every requested operation, with the error number if the model refused
    /// the operation.
    pub log: Vec<(Op, Option<Errno>)>,
    /// The number of times that the model's whole table was read.
    pub readings: usize,
    /// The number of times that a single service of the model was read.
    pub service_readings: usize,
}

impl Default for ModelKernel {
    fn default() -> Self {
        let schedulers = [
            "dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "wlc", "wrr",
        ];
        Self {
            table: ActualTable::new(),
            // The kernel's default timeouts are in ip_vs_proto_tcp.c and
            // ip_vs_proto_udp.c.
            timeouts: Timeouts {
                tcp: 900,
                tcp_fin: 120,
                udp: 300,
            },
            schedulers: schedulers.map(str::to_owned).into(),
            persistence_engines: ["sip".to_owned()].into(),
            fail_with: None,
            broken: None,
            lose_replies: false,
            log: Vec::new(),
            readings: 0,
            service_readings: 0,
        }
    }
}

impl fmt::Debug for ModelKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKernel")
            .field("table", &self.table)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl ModelKernel {
    /// Creates a model of a kernel with the given IPVS table.
    pub fn with_table(table: ActualTable) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Returns the number of operations that callers have requested from the
    /// model.
    pub fn writes(&self) -> usize {
        self.log.len()
    }

    fn available(&self) -> Result<(), Error> {
        self.broken.map_or(Ok(()), |error| Err(error()))
    }

    fn write(&mut self, op: &Op) -> Result<(), Errno> {
        if let Some(errno) = self.fail_with.as_mut().and_then(|fail| fail(op)) {
            return Err(errno);
        }
        self.check(op)?;
        op.apply_to(&mut self.table);
        Ok(())
    }

    fn check(&self, op: &Op) -> Result<(), Errno> {
        let service = self.table.get(&op.service());
        match op {
            Op::NewService(key, config) => {
                check_names(config)?;
                if service.is_some() {
                    return Err(Errno::EEXIST);
                }
                self.check_service(key, config)
            }
            Op::SetService(key, config) => {
                check_names(config)?;
                service.ok_or(Errno::ESRCH)?;
                self.check_service(key, config)
            }
            Op::DeleteService(_) => service.map(drop).ok_or(Errno::ESRCH),
            Op::NewDestination(service_key, key, config) => {
                let service = service.ok_or(Errno::ESRCH)?;
                check_destination(service_key, key, config)?;
                if service.destinations.contains_key(key) {
                    return Err(Errno::EEXIST);
                }
                check_address(key.address)
            }
            Op::SetDestination(service_key, key, config) => {
                let service = service.ok_or(Errno::ESRCH)?;
                check_destination(service_key, key, config)?;
                find(service, key)
            }
            Op::DeleteDestination(_, key) => find(service.ok_or(Errno::ESRCH)?, key),
        }
    }

    /// Repeats the checks of the kernel's `ip_vs_add_service` and
    /// `ip_vs_edit_service`.
    fn check_service(&self, key: &ServiceKey, config: &ServiceConfig) -> Result<(), Errno> {
        let scheduler = &config.scheduler;
        if !scheduler.is_empty() && !self.schedulers.contains(scheduler) {
            return Err(Errno::ENOENT);
        }
        if let Some(engine) = &config.persistence_engine
            && !self.persistence_engines.contains(engine)
        {
            return Err(Errno::ENOENT);
        }
        if key.family() == Family::V6 && !(1..=128).contains(&config.prefix_length) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

/// Repeats the checks of the kernel's `ip_vs_svc_policy`, which the kernel
/// makes before it looks up the service.
fn check_names(config: &ServiceConfig) -> Result<(), Errno> {
    let engine = config.persistence_engine.as_deref().unwrap_or_default();
    match config.scheduler.len() > 15 || engine.len() > 15 {
        true => Err(Errno::EINVAL),
        false => Ok(()),
    }
}

/// Repeats the checks of the kernel's `ip_vs_genl_set_cmd`, and the first
/// checks of `ip_vs_add_dest` and `ip_vs_edit_dest`.
fn check_destination(
    service: &ServiceKey,
    key: &DestinationKey,
    config: &DestinationConfig,
) -> Result<(), Errno> {
    let tunnel = match config.method {
        ForwardingMethod::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    };
    if service.family() != Family::of(key.address) && tunnel.is_none() {
        return Err(Errno::EINVAL);
    }
    if config.weight > i32::MAX.cast_unsigned() || config.lower_threshold > config.upper_threshold {
        return Err(Errno::ERANGE);
    }
    if tunnel.is_some_and(|tunnel| tunnel.kind == TunnelKind::Gue && tunnel.port == 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Repeats the checks of the kernel's `ip_vs_new_dest`.
fn check_address(address: IpAddr) -> Result<(), Errno> {
    let usable = match address {
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
        }
        IpAddr::V6(address) => {
            !address.is_unspecified()
                && !address.is_multicast()
                && !address.is_unicast_link_local()
                && address.to_ipv4_mapped().is_none()
        }
    };
    usable.then_some(()).ok_or(Errno::EINVAL)
}

fn find(service: &ActualService, key: &DestinationKey) -> Result<(), Errno> {
    match service.destinations.contains_key(key) {
        true => Ok(()),
        false => Err(Errno::ENOENT),
    }
}

impl Kernel for ModelKernel {
    fn info(&mut self) -> Result<Info, Error> {
        self.available()?;
        Ok(Info {
            version: (1, 2, 1),
            connection_table_size: 4096,
        })
    }

    fn table(&mut self) -> Result<ActualTable, Error> {
        self.available()?;
        self.readings += 1;
        Ok(self.table.clone())
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error> {
        self.available()?;
        self.service_readings += 1;
        Ok(self.table.get(key).cloned())
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.available()?;
        Ok(self.timeouts)
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        self.available()?;
        let set = |current: &mut u32, wanted: u32| {
            if wanted != 0 {
                *current = wanted;
            }
        };
        set(&mut self.timeouts.tcp, timeouts.tcp);
        set(&mut self.timeouts.tcp_fin, timeouts.tcp_fin);
        set(&mut self.timeouts.udp, timeouts.udp);
        Ok(())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error> {
        self.available()?;
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let errno = self.write(op).err();
            self.log.push((op.clone(), errno));
            failures.extend(errno.map(|errno| Failure { index, errno }));
        }
        if std::mem::take(&mut self.lose_replies) {
            return Err(Error::RepliesLost);
        }
        Ok(failures)
    }
}
