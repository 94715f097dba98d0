//! Values and descriptors between the two halves of `exec`, over a pair of Unix sockets.
//!
//! Owns the frame: its length in four bytes, to which a descriptor may be tied, then JSON. Calls
//! block.

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Longest frame: the names of a million peers.
const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// One end.
pub struct Channel(UnixStream);

impl Channel {
    /// A channel, and the end for another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// The end that another process has made; an error if it is no socket.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        stream.peer_addr()?;
        Ok(Self(stream))
    }

    /// Sends a value, with a descriptor if one is given.
    pub fn send<T: Serialize>(&self, value: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let body = serde_json::to_vec(value)?;
        let length = u32::try_from(body.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let descriptors: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let head = length.to_le_bytes();
        let sent = retry_on_intr(|| {
            let parts = [IoSlice::new(&head)];
            sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)
        })?;
        (&self.0).write_all(&head[sent..])?;
        (&self.0).write_all(&body)
    }

    /// Receives a value and its descriptor; nothing when the other end is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut head = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut head)];
            recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let fd = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (&self.0).read_exact(&mut head[received.bytes..])?;
        let length = u32::from_le_bytes(head);
        if length > FRAME_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length as usize];
        (&self.0).read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn values_and_descriptors_arrive_in_order() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let theirs = Channel::of(theirs).expect("a socket");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        ours.send(&"first", Some(writer.as_fd())).expect("sent");
        ours.send(&vec![1u8; 1000], None).expect("sent");
        drop((ours, writer));
        let (text, fd) = theirs.receive::<String>().expect("read").expect("a value");
        assert_eq!(text, "first");
        let mut writer = std::fs::File::from(fd.expect("a descriptor"));
        writer.write_all(b"x").expect("written");
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("read");
        assert_eq!(read, "x");
        let (bytes, fd) = theirs.receive::<Vec<u8>>().expect("read").expect("a value");
        assert_eq!((bytes.len(), fd.is_none()), (1000, true));
        assert!(theirs.receive::<String>().expect("read").is_none());
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").expect("there");
        assert!(Channel::of(file.into()).is_err());
    }
}
