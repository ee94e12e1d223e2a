//! The netlink socket to the kernel's IPVS. This file contains all I/O of the
//! crate `ipvs`.

use std::{collections::BTreeMap, io, os::fd::AsRawFd, time::Duration};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator, parse_u16,
};
use netlink_packet_generic::{
    GenlFamily, GenlMessage,
    constants::{CTRL_ATTR_FAMILY_ID, GENL_HDRLEN},
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::{SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::{
    socket::{MsgFlags, setsockopt, sockopt},
    time::TimeVal,
};

use crate::{
    ActualService, ActualTable, DestinationKey, Errno, Error, Failure, Info, Kernel, Op,
    ServiceConfig, ServiceKey, Timeouts,
    codec::{self, Batch, DumpedDestination, DumpedService, Message},
    statistics::{DestinationStatistics, ServiceStatistics, Statistics, counters},
};

/// The size in bytes at which a batch of requests is full and is sent.
const BATCH: usize = 192 * 1024;

/// The size of the socket's send buffer in bytes. The kernel accepts datagrams
/// of up to the send buffer's size minus 32 bytes. The default size of a send
/// buffer (`net.core.wmem_default`) may be smaller than a batch.
const SEND_QUEUE: usize = 2 * BATCH;

/// The size in bytes of the buffer for a received datagram. The kernel sends a
/// dump in datagrams of up to 32 KiB, but only if an earlier read on the socket
/// offered a buffer of that size (`net/netlink/af_netlink.c`,
/// `max_recvmsg_len`).
const RECEIVE: usize = 64 * 1024;

/// The size of the socket's receive queue in bytes. The queue has room for the
/// answers to a batch in which every operation fails. The kernel counts about
/// 800 bytes per answer, and drops answers that do not fit into the queue.
const RECEIVE_QUEUE: usize = 8 * 1024 * 1024;

/// How long the socket waits for the kernel's answer. The kernel processes a
/// request during the send call, so an answer comes at once or never. If the
/// kernel's request handler returns EINTR, the kernel sends no answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A generic-netlink socket to the kernel's IPVS. A netlink socket belongs to
/// the network namespace in which it was opened, and keeps that namespace
/// alive.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
    writes: u64,
    system_calls: u64,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace and looks up
    /// the netlink family of IPVS. The kernel loads the module ip_vs if
    /// necessary, even if the process lacks CAP_SYS_MODULE.
    ///
    /// # Errors
    /// The messages of [`Error::NoIpvs`] and [`Error::NotPermitted`] name a
    /// remedy.
    pub fn open() -> Result<Self, Error> {
        let doing = "opening a generic-netlink socket";
        let fail = |source| Error::Io { doing, source };
        let mut socket = netlink_sys::Socket::new(NETLINK_GENERIC).map_err(fail)?;
        socket.bind_auto().map_err(fail)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
        socket.set_cap_ack(true).map_err(fail)?;
        let timeout = TimeVal::new(ANSWER_TIMEOUT.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)
            .map_err(|errno| fail(errno.into()))?;
        // Without CAP_NET_ADMIN, the kernel refuses to enlarge the socket's
        // buffers. `open` ignores this refusal, because the first request then
        // fails with a better error.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_QUEUE);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_QUEUE);

        let mut this = Self {
            socket,
            family: 0,
            sequence: 0,
            buffer: vec![0; RECEIVE],
            writes: 0,
            // The code above makes 8 system calls: socket, bind, getsockname,
            // connect, and setsockopt four times.
            system_calls: 8,
        };
        this.family = this.resolve_family()?;
        this.info()?;
        Ok(this)
    }

    /// Returns the number of write operations that this socket has sent,
    /// including refused operations.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Returns the number of system calls that this socket has made.
    pub fn system_calls(&self) -> u64 {
        self.system_calls
    }

    /// Reads all services in one dump, without their destinations. Reading a
    /// thousand services takes a few system calls.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn services(&mut self) -> Result<BTreeMap<ServiceKey, ServiceConfig>, Error> {
        let services = self.dump_services()?.into_iter();
        Ok(services
            .map(|service| (service.key, service.config))
            .collect())
    }

    /// Reads the counters of all services and destinations, with one dump of
    /// the services and one dump of each service's destinations.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn statistics(&mut self) -> Result<Statistics, Error> {
        let mut statistics = Statistics::new();
        self.read(|service, destinations| {
            let destinations = counters(destinations);
            let stats = service.stats;
            statistics.insert(
                service.key,
                ServiceStatistics {
                    stats,
                    destinations,
                },
            );
        })?;
        Ok(statistics)
    }

    /// Reads the counters of one service's destinations. A service that the
    /// kernel does not have has no destinations.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn destination_statistics(
        &mut self,
        service: &ServiceKey,
    ) -> Result<BTreeMap<DestinationKey, DestinationStatistics>, Error> {
        Ok(counters(self.dump_destinations(service)?))
    }

    fn read(
        &mut self,
        mut each: impl FnMut(DumpedService, Vec<DumpedDestination>),
    ) -> Result<(), Error> {
        for service in self.dump_services()? {
            let destinations = self.dump_destinations(&service.key)?;
            each(service, destinations);
        }
        Ok(())
    }

    fn dump_services(&mut self) -> Result<Vec<DumpedService>, Error> {
        let doing = "reading the services";
        self.ask(&Message::services(), NLM_F_DUMP, doing)?
            .into_iter()
            .map(|message| {
                DumpedService::try_from(message)
                    .map_err(|source| Error::Malformed { doing, source })
            })
            .collect()
    }

    fn dump_destinations(&mut self, service: &ServiceKey) -> Result<Vec<DumpedDestination>, Error> {
        let doing = "reading a service's destinations";
        let family = service.family();
        self.ask(&Message::destinations(service), NLM_F_DUMP, doing)?
            .into_iter()
            .map(|message| {
                DumpedDestination::parse(message, family)
                    .map_err(|source| Error::Malformed { doing, source })
            })
            .collect()
    }

    /// Sends a netlink request and returns all messages that answer the
    /// request. `flags` must contain `NLM_F_ACK` or `NLM_F_DUMP`, so that the
    /// kernel marks the end of the answer.
    fn ask(
        &mut self,
        message: &Message,
        flags: u16,
        doing: &'static str,
    ) -> Result<Vec<Message>, Error> {
        let sequence = self.next_sequence();
        let mut request = Vec::new();
        message.append_to(&mut request, self.header(flags, sequence));
        self.send(&request, doing)?;

        let mut answers = Vec::new();
        loop {
            let length = self.receive(doing)?;
            for answer in codec::messages(&self.buffer[..length]) {
                let answer = answer.map_err(|source| Error::Malformed { doing, source })?;
                if answer.header.sequence_number != sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message.payload),
                    NetlinkPayload::Done(done) => {
                        return match done.code {
                            0 => Ok(answers),
                            code => Err(refused(doing, code)),
                        };
                    }
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(code) => Err(refused(doing, code.get())),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    fn resolve_family(&mut self) -> Result<u16, Error> {
        let doing = "looking up the netlink family IPVS";
        let sequence = self.next_sequence();
        let message = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(Message::family_name().to_owned())],
        });
        let mut message = NetlinkMessage::new(self.header(0, sequence), message.into());
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        self.send(&request, doing)?;
        loop {
            let length = self.receive(doing)?;
            let malformed = |source| Error::Malformed { doing, source };
            let answer = NetlinkMessage::<FamilyId>::deserialize(&self.buffer[..length])
                .map_err(malformed)?;
            if answer.header.sequence_number != sequence {
                continue;
            }
            match answer.payload {
                NetlinkPayload::InnerMessage(FamilyId(family)) => return Ok(family),
                NetlinkPayload::Error(ErrorMessage {
                    code: Some(code), ..
                }) => return Err(refused(doing, code.get())),
                _ => {}
            }
        }
    }

    fn header(&self, flags: u16, sequence: u32) -> NetlinkHeader {
        let mut header = NetlinkHeader::default();
        header.message_type = self.family;
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        header
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&mut self, bytes: &[u8], doing: &'static str) -> Result<(), Error> {
        self.system_calls += 1;
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Io { doing, source }),
        }
    }

    /// Receives a datagram into `buffer` and returns the datagram's length.
    fn receive(&mut self, doing: &'static str) -> Result<usize, Error> {
        loop {
            self.system_calls += 1;
            let fd = self.socket.as_raw_fd();
            // With MSG_TRUNC, recv returns the datagram's full length even if
            // the buffer is shorter.
            match nix::sys::socket::recv(fd, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    let source = io::Error::other(format!(
                        "a datagram of {length} bytes, more than {RECEIVE}"
                    ));
                    return Err(Error::Io { doing, source });
                }
                Ok(length) => return Ok(length),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ENOBUFS) => return Err(Error::RepliesLost),
                Err(nix::errno::Errno::EAGAIN) => {
                    return Err(Error::NoAnswer {
                        doing,
                        seconds: ANSWER_TIMEOUT.as_secs(),
                    });
                }
                Err(errno) => {
                    let source = errno.into();
                    return Err(Error::Io { doing, source });
                }
            }
        }
    }

    /// Sends a batch of operations in one datagram and reads the kernel's
    /// answers. Only the batch's last operation asks for an acknowledgement.
    /// The kernel answers in the order of the requests, so the acknowledgement
    /// comes last. The kernel answers the other operations of the batch only if
    /// they fail.
    fn exchange(&mut self, batch: &Batch, failures: &mut Vec<Failure>) -> Result<(), Error> {
        let doing = "applying operations";
        self.writes += batch.count as u64;
        self.send(&batch.bytes, doing)?;
        loop {
            let length = self.receive(doing)?;
            for answer in codec::messages(&self.buffer[..length]) {
                let answer = answer.map_err(|source| Error::Malformed { doing, source })?;
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                // The answer may belong to an earlier request that timed out.
                // In this case, `position` wraps around to a number far beyond
                // the end of the batch.
                let position = answer
                    .header
                    .sequence_number
                    .wrapping_sub(batch.first_sequence) as usize;
                if position >= batch.count {
                    continue;
                }
                if let Some(code) = error.code {
                    failures.push(Failure {
                        index: batch.first_index + position,
                        errno: Errno(code.get().abs()),
                    });
                }
                if position + 1 == batch.count {
                    return Ok(());
                }
            }
        }
    }
}

impl Kernel for Socket {
    fn info(&mut self) -> Result<Info, Error> {
        let doing = "asking ip_vs for its version";
        let malformed = |source| Error::Malformed { doing, source };
        let mut answers = self.ask(&Message::info(), NLM_F_ACK, doing)?;
        let answer = answers
            .pop()
            .ok_or_else(|| malformed("no answer to IPVS_CMD_GET_INFO".into()))?;
        Info::try_from(answer).map_err(malformed)
    }

    fn table(&mut self) -> Result<ActualTable, Error> {
        let mut table = ActualTable::new();
        self.read(|service, destinations| {
            table.insert(service.key, actual(service.config, destinations));
        })?;
        Ok(table)
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error> {
        let doing = "reading a service";
        let malformed = |source| Error::Malformed { doing, source };
        let answers = match self.ask(&Message::service(key), NLM_F_ACK, doing) {
            Err(Error::Refused { errno, .. }) if errno == Errno::ESRCH => return Ok(None),
            answers => answers?,
        };
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| malformed("no answer to IPVS_CMD_GET_SERVICE".into()))?;
        let service = DumpedService::try_from(answer).map_err(malformed)?;
        let destinations = self.dump_destinations(key)?;
        Ok(Some(actual(service.config, destinations)))
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let doing = "reading the timeouts";
        let malformed = |source| Error::Malformed { doing, source };
        let answers = self.ask(&Message::timeouts(), NLM_F_ACK, doing)?;
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| malformed("no answer to IPVS_CMD_GET_CONFIG".into()))?;
        Ok(answer.into())
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        self.writes += 1;
        let doing = "setting the timeouts";
        self.ask(&Message::set_timeouts(timeouts), NLM_F_ACK, doing)?;
        Ok(())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error> {
        let mut failures = Vec::new();
        let mut index = 0;
        let mut batch = Batch::default();
        while index < ops.len() {
            batch.start(index, self.sequence.wrapping_add(1));
            while index < ops.len() && batch.bytes.len() < BATCH {
                let sequence = self.next_sequence();
                batch.push(&ops[index], self.header(0, sequence));
                index += 1;
            }
            batch.finish();
            self.exchange(&batch, &mut failures)?;
        }
        // ENOENT can also mean that ip_vs was unloaded and its netlink family
        // is gone. If ip_vs was unloaded, the request for the version of IPVS
        // fails too.
        if failures
            .iter()
            .any(|failure| failure.errno == Errno::ENOENT)
        {
            self.info()?;
        }
        Ok(failures)
    }
}

/// Builds an `ActualService` from its dumped configuration and destinations.
/// The kernel dumps a service's newest destination first (`ip_vs_ctl.c`,
/// `__ip_vs_update_dest`).
fn actual(config: ServiceConfig, destinations: Vec<DumpedDestination>) -> ActualService {
    let oldest_first = destinations.into_iter().rev();
    ActualService {
        config,
        destinations: oldest_first
            .map(|destination| (destination.key, destination.config))
            .collect(),
    }
}

fn refused(doing: &'static str, code: i32) -> Error {
    match Errno(code.abs()) {
        Errno::ENOENT => Error::NoIpvs,
        Errno::EPERM => Error::NotPermitted,
        errno => Error::Refused { doing, errno },
    }
}

/// The number of a netlink family, the only attribute needed from the answer to
/// `CTRL_CMD_GETFAMILY`.
#[derive(Debug)]
struct FamilyId(u16);

impl netlink_packet_core::NetlinkDeserializable for FamilyId {
    type Error = netlink_packet_core::DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        let attributes = payload
            .get(GENL_HDRLEN..)
            .ok_or("a CTRL_CMD_NEWFAMILY without its header")?;
        for nla in NlasIterator::new(attributes) {
            let nla = nla?;
            if nla.kind() == CTRL_ATTR_FAMILY_ID {
                return parse_u16(nla.value()).map(Self);
            }
        }
        Err("no CTRL_ATTR_FAMILY_ID in a CTRL_CMD_NEWFAMILY".into())
    }
}
