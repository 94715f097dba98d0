//! The socket that `wg` finds: `/var/run/wireguard/IFNAME.sock`.
//!
//! Owns the file, who may have it, and the conversation on it. What the operations mean is
//! [`Configure`]'s. An operation is carried out whole before the next one, whoever asks.

use super::emit::emit;
use super::parse::Parser;
use super::{Configure, Errno, Refused};
use crate::failure::Failure;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use zeroize::Zeroizing;

/// Where `wg` looks for sockets.
pub const FOLDER: &str = "/var/run/wireguard";

/// Programs that are connected at a time; a further one waits.
const CLIENTS_MAX: usize = 16;

/// Longest line; the longest that there is has 78 bytes.
const LINE_MAX_BYTES: u64 = 512;

/// Largest operation: 100,000 peers with ten prefixes each have 60 MB.
const OPERATION_MAX_BYTES: usize = 512 * 1024 * 1024;

/// The socket of an interface; the file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only if it is ours still; one that stays is taken over by the next node.
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Server {
    /// Creates the socket of an interface in [`FOLDER`].
    ///
    /// # Errors
    ///
    /// As [`Server::bind_in`].
    pub async fn bind(interface: &str) -> Result<Self, Failure> {
        Self::bind_in(Path::new(FOLDER), interface).await
    }

    /// Creates the socket of an interface, mode 0600, and its folder, mode 0700. One on which
    /// nobody listens is replaced.
    ///
    /// # Errors
    ///
    /// Another program answers there, or the file cannot be made.
    pub async fn bind_in(folder: &Path, interface: &str) -> Result<Self, Failure> {
        let path = folder.join(format!("{interface}.sock"));
        let failed = |error: io::Error| {
            let failure = Failure::runtime(format!("the socket for `wg` cannot be made: {error}"))
                .at(path.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => failure.fix(format!(
                    "let the user who runs this write to {}, or run it as root",
                    folder.display()
                )),
                _ => failure,
            }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed)?;
        match UnixStream::connect(&path).await {
            Ok(_) => {
                return Err(Failure::runtime(format!(
                    "another program serves the interface {interface} already"
                ))
                .at(path.display())
                .fix("stop that program, or take another name"));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(&path).map_err(failed)?;
            }
            Err(_) => {}
        }
        // The folder may be a group's: who connects between these two is not answered.
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        let file = identity(&path).map_err(failed)?;
        Ok(Self {
            listener,
            path,
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there still: who removes it asks the program to end.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Answers for ever.
    pub async fn serve<T: Configure>(&self, target: Arc<Mutex<T>>) {
        let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let seat = Arc::clone(&seats).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors: some program will end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if !may_ask(&stream) {
                tracing::debug!("another user connected to the socket for `wg`");
                continue;
            }
            let target = Arc::clone(&target);
            tokio::spawn(async move {
                // A program that goes away is no error of ours.
                let _ = converse(stream, &target).await;
                drop(seat);
            });
        }
    }
}

/// Our user and root: the answer holds the private key, whatever mode the file has, or had for a
/// moment.
fn may_ask(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == ours)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()))
}

async fn converse<T: Configure>(stream: UnixStream, target: &Mutex<T>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = Lines {
        reader: BufReader::with_capacity(64 * 1024, reader),
        line: Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES as usize)),
    };
    loop {
        let Some(operation) = lines.next().await? else {
            return Ok(());
        };
        let done = match operation {
            b"get=1" => match lines.next().await? {
                Some(b"") => {
                    let shown = target.lock().await.show();
                    writer.write_all(emit(&shown).as_bytes()).await?;
                    Ok(())
                }
                _ => Err(Refused::new(Errno::Protocol, "get=1 has nothing behind it")),
            },
            b"set=1" => match lines.change().await? {
                Ok(change) => target.lock().await.set(change).await,
                Err(refused) => Err(refused),
            },
            _ => Err(Refused::new(Errno::Protocol, "neither get=1 nor set=1")),
        };
        // Negative, as wireguard-go has it: `wg` shows the text of the number only then.
        let errno = match &done {
            Ok(()) => 0,
            Err(refused) => -(refused.errno as i32),
        };
        if let Err(refused) = done {
            tracing::warn!(errno, reason = refused.why, "refused what `wg` asked for");
        }
        let answer = format!("errno={errno}\n\n");
        writer.write_all(answer.as_bytes()).await?;
        if errno == -(Errno::Protocol as i32) {
            // What comes next may be the rest of it.
            return Ok(());
        }
    }
}

struct Lines<R> {
    reader: BufReader<R>,
    /// May hold a key.
    line: Zeroizing<Vec<u8>>,
}

impl<R: tokio::io::AsyncRead + Unpin> Lines<R> {
    /// The next line without its line feed; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        (&mut self.reader)
            .take(LINE_MAX_BYTES)
            .read_until(b'\n', &mut self.line)
            .await?;
        match self.line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&self.line)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The lines of a `set=1`. After one that is refused the others are read and left alone, so
    /// that the program that writes them comes to read the answer.
    async fn change(&mut self) -> io::Result<Result<super::parse::Change, Refused>> {
        let mut parser = Parser::default();
        let mut wrong = None;
        let mut bytes = 0;
        loop {
            let Some(line) = self.next().await? else {
                // The program went away in the middle: nothing is done.
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if line.is_empty() {
                return Ok(wrong.map_or_else(|| Ok(parser.finish()), Err));
            }
            bytes += line.len();
            if bytes > OPERATION_MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if wrong.is_none() {
                wrong = parser.line(line).err();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::emit::Shown;
    use crate::uapi::parse::Change;
    use std::io::{Read as _, Write as _};

    /// Remembers the port.
    #[derive(Default)]
    struct Port(u16);

    impl Configure for Port {
        async fn set(&mut self, change: Change) -> Result<(), Refused> {
            if !change.peers.is_empty() {
                return Err(Refused::new(Errno::NotSupported, "no peers here"));
            }
            self.0 = change.listen_port.unwrap_or(self.0);
            Ok(())
        }

        fn show(&self) -> Shown {
            Shown {
                listen_port: self.0,
                ..Shown::default()
            }
        }
    }

    async fn ask(stream: &mut UnixStream, request: &str) -> String {
        // That nobody listens any more shows when it is read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            // What it did not read before it closed makes the kernel say so.
            if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
        }
        String::from_utf8(answer).expect("text")
    }

    #[tokio::test]
    async fn operations_follow_each_other_and_wrong_ones_do_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("wireguard");
        let server = Server::bind_in(&folder, "wm0").await.expect("bound");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(server.path())), (0o700, 0o600));
        let path = server.path().to_owned();
        let target = Arc::new(Mutex::new(Port::default()));
        let serving = tokio::spawn(async move { server.serve(target).await });

        let mut stream = UnixStream::connect(&path).await.expect("connected");
        let key = "11".repeat(32);
        for (request, answer) in [
            ("get=1\n\n", "errno=0\n\n"),
            ("set=1\nlisten_port=7\n\n", "errno=0\n\n"),
            ("get=1\n\n", "listen_port=7\nerrno=0\n\n"),
            (
                "set=1\nlisten_port=8\nlisten_port=x\nfwmark=1\n\n",
                "errno=-22\n\n",
            ),
            (
                &format!("set=1\nlisten_port=9\npublic_key={key}\n\n"),
                "errno=-95\n\n",
            ),
            ("set=1\n\n", "errno=0\n\n"),
            ("get=1\n\n", "listen_port=7\nerrno=0\n\n"),
            ("set=2\n", "errno=-71\n\n"),
            ("get=1\n\n", ""),
        ] {
            assert_eq!(ask(&mut stream, request).await, answer, "{request}");
        }
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        assert_eq!(ask(&mut stream, &"x".repeat(600)).await, "");
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        stream
            .write_all(b"set=1\nlisten_port=10\n")
            .await
            .expect("written");
        drop(stream);
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        assert_eq!(
            ask(&mut stream, "get=1\n\n").await,
            "listen_port=7\nerrno=0\n\n"
        );

        let second = Server::bind_in(&folder, "wm0").await.expect_err("taken");
        assert!(second.what.contains("already"), "{second}");
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
    }

    /// What a thread of another user reads of the socket.
    fn ask_as(uid: u32, path: PathBuf) -> String {
        let asking = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may");
            let mut stream = std::os::unix::net::UnixStream::connect(path).expect("mode 0666");
            // It may have been closed already.
            let _ = stream.write_all(b"get=1\n\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        });
        asking.join().expect("asked")
    }

    #[tokio::test]
    async fn another_user_is_not_answered_whatever_the_mode_says() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can be another user");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let everyone = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        };
        everyone(folder.path(), 0o755);
        let server = Server::bind_in(folder.path(), "wm0").await.expect("bound");
        let path = server.path().to_owned();
        // As in the moment before its mode is set, in a folder of a group with a wide umask.
        everyone(&path, 0o666);
        let serving = tokio::spawn(async move {
            server.serve(Arc::new(Mutex::new(Port::default()))).await;
        });
        let answer = tokio::task::spawn_blocking(move || ask_as(65534, path));
        assert_eq!(answer.await.expect("asked"), "");
        serving.abort();
    }

    #[tokio::test]
    async fn a_socket_without_a_program_is_replaced_and_a_foreign_one_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wm0.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let server = Server::bind_in(folder.path(), "wm0")
            .await
            .expect("replaced");
        assert!(server.is_there());
        fs::remove_file(&path).expect("removed");
        assert!(!server.is_there());
        let other = Server::bind_in(folder.path(), "wm0").await.expect("free");
        assert!(!server.is_there(), "another program has the name now");
        drop(server);
        assert!(other.is_there());
    }
}
