//! Measures the shortest time in which a program can load a table. The program
//! only sends prebuilt netlink messages, in batches of 64 KiB. Only the last
//! message of each batch asks for an answer.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ipvs::codec::Message;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::{
    GenlFamily, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::{size::Size, trace};

const BATCH: usize = 64 * 1024;

/// Loads a table, and returns the time from the first message to the kernel's
/// last answer.
pub(crate) fn load(size: Size) -> Result<Duration> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let batches = batches(size, family(&socket)?);
    let fd = socket.as_raw_fd();
    let mut answer = vec![0; BATCH];
    trace::begin();
    let start = Instant::now();
    for batch in &batches {
        send(fd, batch, MsgFlags::empty())?;
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        // If the kernel accepted the whole batch, the kernel's first answer
        // acknowledges the last message of the batch. In an answer, the error
        // number follows the 16 bytes of nlmsghdr.
        ensure!(
            answer[..length].get(16..20) == Some(&[0; 4]),
            "the kernel refused a message"
        );
    }
    let took = start.elapsed();
    trace::end();
    Ok(took)
}

fn batches(size: Size, family: u16) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = size
        .load()
        .iter()
        .map(|op| {
            let mut message = Vec::new();
            Message::from(op).append_to(&mut message, header(family, NLM_F_REQUEST));
            message
        })
        .collect();
    let mut batches = vec![Vec::with_capacity(BATCH)];
    let mut last = 0;
    for message in &mut messages {
        let batch = batches.last_mut().expect("there is always a batch");
        if batch.len() + message.len() > BATCH {
            ask_for_answer(&mut batch[last..]);
            batches.push(Vec::with_capacity(BATCH));
        }
        let batch = batches.last_mut().expect("there is always a batch");
        last = batch.len();
        batch.append(message);
    }
    if let Some(batch) = batches.last_mut() {
        ask_for_answer(&mut batch[last..]);
    }
    batches
}

/// Sets the flag NLM_F_ACK in a netlink message. In nlmsghdr, the flags follow
/// the length (4 bytes) and the type (2 bytes).
fn ask_for_answer(message: &mut [u8]) {
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
}

/// Returns this kernel's number for the generic netlink family IPVS.
fn family(socket: &Socket) -> Result<u16> {
    let question = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(Message::family_name().to_owned())],
    });
    let kind = netlink_packet_generic::constants::GENL_ID_CTRL;
    let mut question = NetlinkMessage::new(header(kind, NLM_F_REQUEST), question.into());
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<GenlMessage<GenlCtrl>>::deserialize(&answer)?;
    let NetlinkPayload::InnerMessage(answer) = answer.payload else {
        anyhow::bail!("the kernel does not know the family IPVS");
    };
    let mut attributes = answer.payload.nlas.into_iter();
    attributes
        .find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(number) => Some(number),
            _ => None,
        })
        .context("the family IPVS has no number")
}

fn header(kind: u16, flags: u16) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = flags;
    header
}
