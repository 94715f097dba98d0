//! The one filter table that guards an overlay interface: nftables over netlink.
//!
//! Owns its rules (DESIGN.md section 6) and their bytes. They are fixed; only the name of the
//! interface, the node's own addresses and its user vary. What they say, for `wm0`:
//!
//! * between control addresses nothing passes but UDP between the control ports;
//! * a packet from an overlay address that is not ours to one that is came in through `wm0`, or is
//!   dropped: a local program can bind a peer's address (IPV6_FREEBIND);
//! * only the node's user sends from or to the control and stream ports of overlay addresses;
//! * nothing is forwarded in another's name: not from overlay addresses, not for these ports.
//!
//! A table is no part of the interface for the kernel: whoever makes it removes it, after the
//! interface.

use crate::message::{Attributes, Message, Socket};
use std::io;
use std::net::Ipv6Addr;

/// Addresses of nodes and of their control protocol, both: fd77:6d00::/24.
const OVERLAY: Range = Range(Ipv6Addr::new(0xfd77, 0x6d00, 0, 0, 0, 0, 0, 0), 24);
/// Addresses of the control protocol.
const CONTROL: Range = Range(Ipv6Addr::new(0xfd77, 0x6d80, 0, 0, 0, 0, 0, 0), 25);
const CONTROL_PORT: u16 = 2707;
const STREAM_PORT: u16 = 2708;

const TABLE_PREFIX: &str = "wiremesh-";

#[derive(Clone, Copy)]
struct Range(Ipv6Addr, u32);

/// What varies in the table.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// The interface.
    pub interface: &'a str,
    /// Our addresses on it; those outside the overlay are passed over.
    pub addresses: &'a [Ipv6Addr],
    /// The user that the node runs as.
    pub uid: u32,
}

/// Loads the table, in one transaction. A table of that name, which an interface before left, is
/// replaced.
///
/// # Errors
///
/// The kernel refuses: no nftables, no CAP_NET_ADMIN.
pub fn load(guard: &Guard<'_>) -> io::Result<()> {
    transact(&load_messages(guard))
}

/// Removes the table of an interface.
///
/// # Errors
///
/// `NotFound` when there is none; else the kernel refuses.
pub fn remove(interface: &str) -> io::Result<()> {
    transact(&[change(msg::DELTABLE, 0, |table| {
        table.text(attr::TABLE_NAME, &table_name(interface));
    })])
}

/// The interfaces that there is a table for.
///
/// # Errors
///
/// The kernel refuses.
pub fn interfaces() -> io::Result<Vec<String>> {
    let mut request = Message::new(msg::GETTABLE, Message::DUMP);
    request.raw(&[family::IPV6, 0, 0, 0]);
    let answers = Socket::open(Socket::NETFILTER)?.ask(request)?;
    let names = answers.iter().filter_map(|answer| {
        let name = Attributes::of(answer.get(4..)?)
            .find(|(kind, _)| *kind == attr::TABLE_NAME)?
            .1;
        let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
        Some(name.strip_prefix(TABLE_PREFIX)?.to_owned())
    });
    Ok(names.collect())
}

fn transact(changes: &[Message]) -> io::Result<()> {
    let edge = |kind| {
        let mut message = Message::new(kind, 0);
        message.raw(&[0, 0, 0, SUBSYSTEM]);
        message
    };
    let begin = [edge(msg::BATCH_BEGIN)];
    let end = [edge(msg::BATCH_END)];
    let all = begin.iter().chain(changes).chain(&end);
    Socket::open(Socket::NETFILTER)?.transact(all)
}

fn load_messages(guard: &Guard<'_>) -> Vec<Message> {
    let name = table_name(guard.interface);
    let table = |kind, flags| change(kind, flags, |table| table.text(attr::TABLE_NAME, &name));
    // Removing what is not there would end the transaction: so it is made first.
    let mut all = vec![
        table(msg::NEWTABLE, Message::CREATE),
        table(msg::DELTABLE, 0),
        table(msg::NEWTABLE, Message::CREATE | Message::EXCL),
    ];
    for (chain, hook, rules) in [
        ("input", 1u32, input(guard)),
        ("forward", 2, forward(guard)),
        ("output", 3, output(guard)),
    ] {
        all.push(change(
            msg::NEWCHAIN,
            Message::CREATE | Message::EXCL,
            |m| {
                m.text(attr::CHAIN_TABLE, &name);
                m.text(attr::CHAIN_NAME, chain);
                m.nest(attr::CHAIN_HOOK, |m| {
                    m.be32(attr::HOOK_NUMBER, hook);
                    m.be32(attr::HOOK_PRIORITY, 0);
                });
                m.be32(attr::CHAIN_POLICY, verdict::ACCEPT);
                m.text(attr::CHAIN_TYPE, "filter");
            },
        ));
        for rule in rules {
            all.push(change(
                msg::NEWRULE,
                Message::CREATE | Message::APPEND,
                |m| {
                    m.text(attr::RULE_TABLE, &name);
                    m.text(attr::RULE_CHAIN, chain);
                    m.nest(attr::RULE_EXPRESSIONS, |m| {
                        rule.iter().for_each(|term| term.emit(m))
                    });
                },
            ));
        }
    }
    all
}

fn input(guard: &Guard<'_>) -> Vec<Vec<Term>> {
    let ours = guard.addresses.iter().copied();
    let ours: Vec<Ipv6Addr> = ours.filter(|&address| OVERLAY.holds(address)).collect();
    let mut rules = Vec::new();
    for &address in &ours {
        let mut rule = vec![
            Term::Interface(Key::Iifname, Op::Ne, padded(guard.interface)),
            Term::In(DESTINATION, Range(address, 128)),
            Term::In(SOURCE, OVERLAY),
        ];
        rule.extend(ours.iter().map(|&own| Term::NotFrom(own)));
        rule.push(Term::Verdict(verdict::DROP));
        rules.push(rule);
    }
    rules.extend(control());
    rules
}

/// Between control addresses only UDP between the control ports.
fn control() -> [Vec<Term>; 3] {
    [
        vec![
            Term::In(SOURCE, CONTROL),
            Term::In(DESTINATION, CONTROL),
            Term::Udp,
            Term::Port(SOURCE_PORT, Op::Eq, CONTROL_PORT),
            Term::Port(DESTINATION_PORT, Op::Eq, CONTROL_PORT),
            Term::Verdict(verdict::ACCEPT),
        ],
        vec![Term::In(SOURCE, CONTROL), Term::Verdict(verdict::DROP)],
        vec![Term::In(DESTINATION, CONTROL), Term::Verdict(verdict::DROP)],
    ]
}

fn output(guard: &Guard<'_>) -> Vec<Vec<Term>> {
    let reserved = |port| {
        vec![
            Term::NotUser(guard.uid),
            Term::In(DESTINATION, OVERLAY),
            Term::Udp,
            Term::Port(port, Op::Ge, CONTROL_PORT),
            Term::Port(port, Op::Le, STREAM_PORT),
            Term::Verdict(verdict::DROP),
        ]
    };
    let mut rules = vec![reserved(SOURCE_PORT), reserved(DESTINATION_PORT)];
    rules.extend(control());
    rules
}

fn forward(guard: &Guard<'_>) -> Vec<Vec<Term>> {
    let through = |key| Term::Interface(key, Op::Eq, padded(guard.interface));
    let reserved = |port| {
        vec![
            through(Key::Oifname),
            Term::Udp,
            Term::Port(port, Op::Ge, CONTROL_PORT),
            Term::Port(port, Op::Le, STREAM_PORT),
            Term::Verdict(verdict::DROP),
        ]
    };
    let drop = Term::Verdict(verdict::DROP);
    vec![
        vec![through(Key::Iifname), Term::In(DESTINATION, OVERLAY), drop],
        vec![through(Key::Oifname), Term::In(SOURCE, OVERLAY), drop],
        reserved(SOURCE_PORT),
        reserved(DESTINATION_PORT),
    ]
}

fn table_name(interface: &str) -> String {
    format!("{TABLE_PREFIX}{interface}")
}

/// As the kernel keeps a name: IFNAMSIZ bytes.
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn change(kind: u16, flags: u16, body: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::new(kind, flags);
    message.raw(&[family::IPV6, 0, 0, 0]);
    body(&mut message);
    message
}

impl Range {
    fn mask(self) -> [u8; 16] {
        let host = u128::MAX.checked_shr(self.1).unwrap_or(0);
        (!host).to_be_bytes()
    }

    fn holds(self, address: Ipv6Addr) -> bool {
        let mask = u128::from_be_bytes(self.mask());
        (u128::from(address) ^ u128::from(self.0)) & mask == 0
    }
}

/// Where a field is: base (1: network header, 2: transport header), offset, bytes.
type Field = (u32, u32, u32);
const SOURCE: Field = (1, 8, 16);
const DESTINATION: Field = (1, 24, 16);
const SOURCE_PORT: Field = (2, 0, 2);
const DESTINATION_PORT: Field = (2, 2, 2);

/// NFT_META_*.
#[derive(Clone, Copy)]
enum Key {
    Iifname = 6,
    Oifname = 7,
    Skuid = 10,
    L4proto = 16,
}

/// NFT_CMP_*.
#[derive(Clone, Copy)]
enum Op {
    Eq = 0,
    Ne = 1,
    Le = 3,
    Ge = 5,
}

/// One condition of a rule, or its verdict.
#[derive(Clone, Copy)]
enum Term {
    Interface(Key, Op, [u8; 16]),
    In(Field, Range),
    NotFrom(Ipv6Addr),
    Udp,
    Port(Field, Op, u16),
    NotUser(u32),
    Verdict(u32),
}

impl Term {
    fn emit(&self, m: &mut Message) {
        match *self {
            Self::Interface(key, op, name) => {
                meta(m, key);
                compare(m, op, &name);
            }
            Self::In(field, range) => {
                payload(m, field);
                if range.1 < 128 {
                    mask(m, &range.mask());
                }
                compare(m, Op::Eq, &range.0.octets());
            }
            Self::NotFrom(address) => {
                payload(m, SOURCE);
                compare(m, Op::Ne, &address.octets());
            }
            Self::Udp => {
                meta(m, Key::L4proto);
                compare(m, Op::Eq, &[17]);
            }
            Self::Port(field, op, port) => {
                payload(m, field);
                compare(m, op, &port.to_be_bytes());
            }
            Self::NotUser(uid) => {
                meta(m, Key::Skuid);
                compare(m, Op::Ne, &uid.to_ne_bytes());
            }
            Self::Verdict(code) => expression(m, "immediate", |m| {
                m.be32(attr::IMMEDIATE_DREG, 0);
                m.nest(attr::IMMEDIATE_DATA, |m| {
                    m.nest(attr::DATA_VERDICT, |m| m.be32(attr::VERDICT_CODE, code));
                });
            }),
        }
    }
}

/// NFT_REG_1: 16 bytes.
const REGISTER: u32 = 1;

fn expression(m: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    m.nest(attr::LIST_ELEM, |m| {
        m.text(attr::EXPR_NAME, name);
        m.nest(attr::EXPR_DATA, data);
    });
}

fn meta(m: &mut Message, key: Key) {
    expression(m, "meta", |m| {
        m.be32(attr::META_KEY, key as u32);
        m.be32(attr::META_DREG, REGISTER);
    });
}

fn payload(m: &mut Message, (base, offset, length): Field) {
    expression(m, "payload", |m| {
        m.be32(attr::PAYLOAD_DREG, REGISTER);
        m.be32(attr::PAYLOAD_BASE, base);
        m.be32(attr::PAYLOAD_OFFSET, offset);
        m.be32(attr::PAYLOAD_LEN, length);
    });
}

fn mask(m: &mut Message, mask: &[u8; 16]) {
    expression(m, "bitwise", |m| {
        m.be32(attr::BITWISE_SREG, REGISTER);
        m.be32(attr::BITWISE_DREG, REGISTER);
        m.be32(attr::BITWISE_LEN, 16);
        m.nest(attr::BITWISE_MASK, |m| m.bytes(attr::DATA_VALUE, mask));
        m.nest(attr::BITWISE_XOR, |m| m.bytes(attr::DATA_VALUE, &[0; 16]));
    });
}

fn compare(m: &mut Message, op: Op, value: &[u8]) {
    expression(m, "cmp", |m| {
        m.be32(attr::CMP_SREG, REGISTER);
        m.be32(attr::CMP_OP, op as u32);
        m.nest(attr::CMP_DATA, |m| m.bytes(attr::DATA_VALUE, value));
    });
}

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u8 = 10;

/// Message types: NFNL_MSG_BATCH_*, and NFT_MSG_* of the subsystem.
mod msg {
    pub const BATCH_BEGIN: u16 = 0x10;
    pub const BATCH_END: u16 = 0x11;
    pub const NEWTABLE: u16 = 0x0a00;
    pub const GETTABLE: u16 = 0x0a01;
    pub const DELTABLE: u16 = 0x0a02;
    pub const NEWCHAIN: u16 = 0x0a03;
    pub const NEWRULE: u16 = 0x0a06;
}

/// NFPROTO_*.
mod family {
    pub const IPV6: u8 = 10;
}

/// NF_*.
mod verdict {
    pub const DROP: u32 = 0;
    pub const ACCEPT: u32 = 1;
}

/// NFTA_* of linux/netfilter/nf_tables.h.
mod attr {
    pub const TABLE_NAME: u16 = 1;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const LIST_ELEM: u16 = 1;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const META_DREG: u16 = 1;
    pub const META_KEY: u16 = 2;
    pub const CMP_SREG: u16 = 1;
    pub const CMP_OP: u16 = 2;
    pub const CMP_DATA: u16 = 3;
    pub const PAYLOAD_DREG: u16 = 1;
    pub const PAYLOAD_BASE: u16 = 2;
    pub const PAYLOAD_OFFSET: u16 = 3;
    pub const PAYLOAD_LEN: u16 = 4;
    pub const BITWISE_SREG: u16 = 1;
    pub const BITWISE_DREG: u16 = 2;
    pub const BITWISE_LEN: u16 = 3;
    pub const BITWISE_MASK: u16 = 4;
    pub const BITWISE_XOR: u16 = 5;
    pub const IMMEDIATE_DREG: u16 = 1;
    pub const IMMEDIATE_DATA: u16 = 2;
}
