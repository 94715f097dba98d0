//! Serves clients, one packet at a time.
//!
//! Owns the connections and their limits. An interface belongs to a connection and goes with it,
//! whatever ended it.

use super::interfaces::{Interfaces, Made};
use super::listener::{self, Peer};
use super::peers::Peers;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    self, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
};
use std::convert::Infallible;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use wiremesh_netadmin::verbs::{REQUEST_BYTES_MAX, Reason, Refusal, Reply, Request};
use zeroize::Zeroizing;

/// Connections at a time; one more is refused.
const CLIENTS_MAX: usize = 16;
/// The same of one user.
const CLIENTS_OF_USER_MAX: usize = 8;
/// How long a connection without an interface may stay.
const SILENCE_MAX: Duration = Duration::from_secs(2);

struct Client {
    socket: OwnedFd,
    peer: Peer,
    since: Instant,
    made: Option<Made>,
}

impl Client {
    fn peers(&mut self) -> Result<&mut Peers, Refusal> {
        let made = self.made.as_mut();
        let peers = made.and_then(|made| made.peers.as_mut());
        peers.ok_or(Reason::NoInterface.into())
    }
}

struct Server {
    listener: OwnedFd,
    interfaces: Interfaces,
    clients: Vec<Client>,
}

/// Serves until the process is ended.
pub fn run(listener: OwnedFd, interfaces: Interfaces) -> Result<Infallible, String> {
    let mut server = Server {
        listener,
        interfaces,
        clients: Vec::new(),
    };
    loop {
        let ready = server.wait()?;
        // From the end, so that one that goes changes no place before it.
        for place in (0..server.clients.len()).rev() {
            let client = &server.clients[place];
            let silent = client.made.is_none() && client.since.elapsed() > SILENCE_MAX;
            if (ready[place] && !server.serve(place)) || silent {
                server.end(place);
            }
        }
        if ready.last() == Some(&true) {
            server.accept();
        }
    }
}

impl Server {
    /// Which clients have something to say, and last whether there is a new one.
    fn wait(&self) -> Result<Vec<bool>, String> {
        let sockets = self.clients.iter().map(|client| &client.socket);
        let mut polled: Vec<PollFd<'_>> = sockets
            .chain([&self.listener])
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let waits = self.clients.iter().any(|client| client.made.is_none());
        let second = Timespec::try_from(SILENCE_MAX / 2).expect("it is small");
        match poll(&mut polled, waits.then_some(&second)) {
            Err(error) if error != Errno::INTR => Err(format!("cannot wait: {error}")),
            _ => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(&self.listener, flags);
        let Ok((peer, socket)) = socket.and_then(|socket| Ok((listener::peer(&socket)?, socket)))
        else {
            return;
        };
        let same_user = |client: &&Client| client.peer.uid == peer.uid;
        let of_user = self.clients.iter().filter(same_user).count();
        let full = self.clients.len() >= CLIENTS_MAX || of_user >= CLIENTS_OF_USER_MAX;
        match (peer.allowed, full) {
            (false, _) => refuse(&socket, peer, Reason::Foreign.into()),
            (true, true) => refuse(&socket, peer, Reason::Full.into()),
            (true, false) => self.clients.push(Client {
                socket,
                peer,
                since: Instant::now(),
                made: None,
            }),
        }
    }

    /// Takes one packet; false ends the connection.
    fn serve(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        // One byte more than the longest request, so that a longer one does not parse.
        let mut buffer = Zeroizing::new([0; REQUEST_BYTES_MAX + 1]);
        let length = match net::recv(&client.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((length, _)) => length,
            Err(error) => return error == Errno::AGAIN || error == Errno::INTR,
        };
        let request = Request::parse(&buffer[..length]);
        match request.and_then(|request| carry_out(&self.interfaces, client, &request)) {
            Ok((reply, device)) => answer(&client.socket, &reply, device.as_ref()).is_ok(),
            Err(refusal) if client.made.is_none() => {
                refuse(&client.socket, client.peer, refusal);
                false
            }
            // Not logged: there may be any number.
            Err(refusal) => answer(&client.socket, &Reply::Refused(refusal), None).is_ok(),
        }
    }

    fn end(&mut self, place: usize) {
        let client = self.clients.swap_remove(place);
        if let Some(made) = client.made {
            self.interfaces.remove(&made);
            say(client.peer, &format!("removed {}", made.name.as_str()));
        }
    }
}

/// Nothing is in a client's reach but the interface of its connection.
fn carry_out(
    interfaces: &Interfaces,
    client: &mut Client,
    request: &Request,
) -> Result<(Reply, Option<OwnedFd>), Refusal> {
    let reply = match request {
        Request::Make(..) if client.made.is_some() => return Err(Reason::Second.into()),
        Request::Make(wanted, settings) => {
            let (made, device) = interfaces.make(wanted, settings.as_ref(), client.peer.uid)?;
            say(client.peer, &format!("made {}", made.name.as_str()));
            let index = client.made.insert(made).index;
            return Ok((Reply::Done(index), device));
        }
        Request::SetPeer(change) => client.peers()?.set(change),
        Request::RemovePeer(key) => client.peers()?.remove(key),
        Request::ReadFigures(from) => client.peers()?.figures(*from),
    };
    Ok((reply?, None))
}

/// One line for the log. Nothing in it was chosen by the client but a name that was checked.
fn say(peer: Peer, what: &str) {
    // A log that is gone is no reason to stop.
    let _ = writeln!(io::stderr(), "uid {} pid {}: {what}", peer.uid, peer.pid);
}

fn refuse(socket: &OwnedFd, peer: Peer, refusal: Refusal) {
    say(peer, &format!("refused: {refusal}"));
    // A client that does not read has ended, or will hear nothing.
    let _ = answer(socket, &Reply::Refused(refusal), None);
}

/// Never waits: a reply fits into the buffer of a client that reads.
fn answer(socket: &OwnedFd, reply: &Reply, device: Option<&OwnedFd>) -> Result<(), Errno> {
    let text = reply.to_string();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = device.map(|device| [device.as_fd()]);
    if let Some(descriptors) = &descriptors {
        let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "the space is for one descriptor");
    }
    let parts = [IoSlice::new(text.as_bytes())];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    net::sendmsg(socket, &parts, &mut control, flags).map(drop)
}
