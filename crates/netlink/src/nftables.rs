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

use crate::message::{self, Attributes, Message, Socket, attribute, be32, nest, text};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use zeroize::Zeroizing;

/// An address and the leading bits that count.
type Range = (Ipv6Addr, u32);
/// Addresses of nodes and of their control protocol, both.
const OVERLAY: Range = (Ipv6Addr::new(0xfd77, 0x6d00, 0, 0, 0, 0, 0, 0), 24);
/// Addresses of the control protocol.
const CONTROL: Range = (Ipv6Addr::new(0xfd77, 0x6d80, 0, 0, 0, 0, 0, 0), 25);
const CONTROL_PORT: u16 = 2707;
const STREAM_PORT: u16 = 2708;

const TABLE_PREFIX: &str = "wiremesh-";

/// What varies in the table.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// The interface.
    pub interface: &'a str,
    /// Our addresses on it; those outside the overlay are passed over.
    pub addresses: &'a [IpAddr],
    /// The user that the node runs as.
    pub uid: u32,
}

/// Loads the table, in one transaction. A table of that name, which an interface before left, is
/// replaced.
///
/// # Errors
///
/// The kernel refuses: no nftables, no CAP_NET_ADMIN.
pub fn set(guard: &Guard<'_>) -> io::Result<()> {
    transact(load_messages(guard))
}

/// Removes the table of an interface.
///
/// # Errors
///
/// `NotFound` when there is none; else the kernel refuses.
pub fn remove(interface: &str) -> io::Result<()> {
    transact(vec![change(
        DELTABLE,
        0,
        &[text(1, &table_name(interface))],
    )])
}

/// The interfaces that there is a table for.
///
/// # Errors
///
/// The kernel refuses.
pub fn interfaces() -> io::Result<Vec<String>> {
    let answers = Socket::open(Socket::NETFILTER)?.ask(&change(GETTABLE, message::DUMP, &[]))?;
    let names = answers.iter().filter_map(|answer| {
        let (_, name) = Attributes(answer.get(4..)?).find(|(kind, _)| *kind == 1)?;
        let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
        Some(name.strip_prefix(TABLE_PREFIX)?.to_owned())
    });
    Ok(names.collect())
}

fn table_name(interface: &str) -> String {
    format!("{TABLE_PREFIX}{interface}")
}

// NFNL_MSG_BATCH_*, and NFT_MSG_* of NFNL_SUBSYS_NFTABLES (10)
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0x0a00;
const GETTABLE: u16 = 0x0a01;
const DELTABLE: u16 = 0x0a02;
const NEWCHAIN: u16 = 0x0a03;
const NEWRULE: u16 = 0x0a06;

/// A message for NFPROTO_IPV6.
fn change(kind: u16, flags: u16, attributes: &[Vec<u8>]) -> Message {
    let body = [vec![10, 0, 0, 0], attributes.concat()].concat().into();
    Message { kind, flags, body }
}

fn transact(mut all: Vec<Message>) -> io::Result<()> {
    let (flags, subsystem) = (0, Zeroizing::new(vec![0, 0, 0, 10]));
    for (place, kind) in [(0, BATCH_BEGIN), (all.len() + 1, BATCH_END)] {
        let body = subsystem.clone();
        all.insert(place, Message { kind, flags, body });
    }
    Socket::open(Socket::NETFILTER)?.transact(&all)
}

/// The numbers of attributes are those of linux/netfilter/nf_tables.h, by their order there.
fn load_messages(guard: &Guard<'_>) -> Vec<Message> {
    let name = &table_name(guard.interface);
    let table = |kind, flags| change(kind, flags, &[text(1, name)]);
    // Removing what is not there would end the transaction: so it is made first.
    let mut all = vec![
        table(NEWTABLE, message::CREATE),
        table(DELTABLE, 0),
        table(NEWTABLE, message::CREATE | message::EXCL),
    ];
    // NF_INET_LOCAL_IN, _FORWARD, _LOCAL_OUT
    for (chain, hook, rules) in [
        ("input", 1, input(guard)),
        ("forward", 2, forward(guard)),
        ("output", 3, output(guard)),
    ] {
        let place = nest(4, &[be32(1, hook), be32(2, 0)]);
        let head = [
            text(1, name),
            text(3, chain),
            place,
            be32(5, NF_ACCEPT),
            text(7, "filter"),
        ];
        all.push(change(NEWCHAIN, message::CREATE | message::EXCL, &head));
        for rule in rules {
            let rule = [text(1, name), text(2, chain), nest(4, &rule)];
            all.push(change(NEWRULE, message::CREATE | message::APPEND, &rule));
        }
    }
    all
}

/// The expressions of one rule, emitted.
type Rule = Vec<Vec<u8>>;

fn input(guard: &Guard<'_>) -> Vec<Rule> {
    let v6 = guard.addresses.iter().filter_map(|own| match own {
        IpAddr::V6(own) => Some(own),
        IpAddr::V4(_) => None,
    });
    let ours: Vec<&Ipv6Addr> = v6.filter(|own| in_overlay(own)).collect();
    let mut rules = Vec::new();
    for &&address in &ours {
        let elsewhere = interface(IIFNAME, NE, guard);
        let mut rule = [
            elsewhere,
            within(DESTINATION, (address, 128)),
            within(SOURCE, OVERLAY),
        ]
        .concat();
        for own in &ours {
            rule.extend([load(SOURCE), compare(NE, &own.octets())]);
        }
        rule.push(verdict(NF_DROP));
        rules.push(rule);
    }
    rules.extend(control());
    rules
}

/// Between control addresses only UDP between the control ports.
fn control() -> [Rule; 3] {
    let from_port = [udp(), port(SOURCE_PORT, EQ, CONTROL_PORT)].concat();
    let to_port = port(DESTINATION_PORT, EQ, CONTROL_PORT);
    let (from, to) = (within(SOURCE, CONTROL), within(DESTINATION, CONTROL));
    let accept = vec![verdict(NF_ACCEPT)];
    let drop = vec![verdict(NF_DROP)];
    [
        [from.clone(), to.clone(), from_port, to_port, accept].concat(),
        [from, drop.clone()].concat(),
        [to, drop].concat(),
    ]
}

fn output(guard: &Guard<'_>) -> Vec<Rule> {
    let other_user = vec![meta(SKUID), compare(NE, &guard.uid.to_ne_bytes())];
    let to = within(DESTINATION, OVERLAY);
    let mut rules = vec![
        [other_user.clone(), to.clone(), reserved(SOURCE_PORT)].concat(),
        [other_user, to, reserved(DESTINATION_PORT)].concat(),
    ];
    rules.extend(control());
    rules
}

fn forward(guard: &Guard<'_>) -> Vec<Rule> {
    let (from, to) = (interface(IIFNAME, EQ, guard), interface(OIFNAME, EQ, guard));
    let drop = vec![verdict(NF_DROP)];
    vec![
        [from, within(DESTINATION, OVERLAY), drop.clone()].concat(),
        [to.clone(), within(SOURCE, OVERLAY), drop].concat(),
        [to.clone(), reserved(SOURCE_PORT)].concat(),
        [to, reserved(DESTINATION_PORT)].concat(),
    ]
}

/// Drops what has one of the node's ports there.
fn reserved(field: Field) -> Rule {
    let (low, high) = (port(field, GE, CONTROL_PORT), port(field, LE, STREAM_PORT));
    [udp(), low, high, vec![verdict(NF_DROP)]].concat()
}

fn interface(key: u32, op: u32, guard: &Guard<'_>) -> Rule {
    // The kernel keeps a name in IFNAMSIZ bytes.
    let mut name = guard.interface.as_bytes().to_vec();
    name.resize(16, 0);
    vec![meta(key), compare(op, &name)]
}

fn udp() -> Rule {
    vec![meta(L4PROTO), compare(EQ, &[17])]
}

fn port(field: Field, op: u32, port: u16) -> Rule {
    vec![load(field), compare(op, &port.to_be_bytes())]
}

fn within(field: Field, (address, bits): Range) -> Rule {
    let kept = mask(bits).to_be_bytes();
    let zero = nest(5, &[attribute(1, &[0; 16])]);
    let kept = nest(4, &[attribute(1, &kept)]);
    let and = expression(
        "bitwise",
        &[
            be32(1, REGISTER),
            be32(2, REGISTER),
            be32(3, 16),
            kept,
            zero,
        ],
    );
    vec![load(field), and, compare(EQ, &address.octets())]
}

fn in_overlay(address: &Ipv6Addr) -> bool {
    (u128::from(*address) ^ u128::from(OVERLAY.0)) & mask(OVERLAY.1) == 0
}

fn mask(bits: u32) -> u128 {
    !u128::MAX.checked_shr(bits).unwrap_or(0)
}

/// Where a field is: base (1: network header, 2: transport header), offset, bytes.
type Field = [u32; 3];
const SOURCE: Field = [1, 8, 16];
const DESTINATION: Field = [1, 24, 16];
const SOURCE_PORT: Field = [2, 0, 2];
const DESTINATION_PORT: Field = [2, 2, 2];
/// NFT_REG_1: 16 bytes.
const REGISTER: u32 = 1;
// NFT_META_*
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const SKUID: u32 = 10;
const L4PROTO: u32 = 16;
// NFT_CMP_*
const EQ: u32 = 0;
const NE: u32 = 1;
const LE: u32 = 3;
const GE: u32 = 5;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[text(1, name), nest(2, data)])
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[be32(2, key), be32(1, REGISTER)])
}

fn load([base, offset, length]: Field) -> Vec<u8> {
    let place = [
        be32(1, REGISTER),
        be32(2, base),
        be32(3, offset),
        be32(4, length),
    ];
    expression("payload", &place)
}

fn compare(op: u32, value: &[u8]) -> Vec<u8> {
    let value = nest(3, &[attribute(1, value)]);
    expression("cmp", &[be32(1, REGISTER), be32(2, op), value])
}

fn verdict(code: u32) -> Vec<u8> {
    let code = nest(2, &[be32(1, code)]);
    expression("immediate", &[be32(1, 0), nest(2, &[code])])
}
