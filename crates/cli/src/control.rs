//! The control socket: how `wiremesh status`, `ping`, `policy` and others talk to the running node.
//!
//! Owns the protocol (one JSON request on a line, one JSON answer on a line, again and again) and
//! the socket file, which only its owner may use. It never carries a secret key.

use crate::failure::Failure;
use crate::folders;
use crate::security::{PinsForm, PolicyChange, PolicyForm, SuitesForm};
use crate::status::Status;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Longest request.
const REQUEST_MAX_BYTES: u64 = 64 * 1024;

/// Longest answer: a status of some hundred thousand peers.
const ANSWER_MAX_BYTES: u64 = 1 << 30;

/// Programs that are served at a time; a further one waits.
const CLIENTS_MAX: usize = 32;

/// What a program asks the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status,
    /// One ICMP echo request to a peer.
    Ping {
        /// Name, node id, or address inside the tunnel.
        target: String,
        /// Data in the request, bytes.
        payload_bytes: u16,
        /// How long to wait for the reply, milliseconds.
        timeout_ms: u64,
    },
    /// The security policy.
    Policy,
    /// Another security policy, from now on.
    SetPolicy(PolicyChange),
    /// What the node and its peers speak.
    Suites,
    /// What peers have promised.
    Pins {
        /// Name, node id or ticket; all without one.
        #[serde(default)]
        peer: Option<String>,
    },
    /// Forget that a peer has promised a level. The operator was asked.
    LowerPin {
        /// Name, node id or ticket.
        peer: String,
        /// The level to go down to.
        to: String,
    },
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// A reply came.
    Pong {
        /// From where.
        address: std::net::IpAddr,
        /// The round trip, microseconds.
        round_trip_us: u64,
    },
    /// No reply came in time.
    NoReply {
        /// From where one was awaited.
        address: std::net::IpAddr,
        /// What is known of the peer.
        reason: Option<String>,
    },
    /// The security policy.
    Policy(PolicyForm),
    /// What is spoken.
    Suites(SuitesForm),
    /// What peers have promised.
    Pins(PinsForm),
    /// The request makes no sense.
    Error {
        /// What is wrong.
        message: String,
        /// How to fix it.
        fix: Option<String>,
    },
}

impl Answer {
    /// An error with its remedy.
    pub fn error(message: impl ToString, fix: Option<String>) -> Self {
        Self::Error {
            message: message.to_string(),
            fix,
        }
    }

    /// As the end of a command that asked for something else.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Error { message, fix } => Failure {
                fix,
                ..Failure::input(message)
            },
            _ => Failure::runtime("the running node answers something else"),
        }
    }
}

/// The socket of a running node; the file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A file that stays is taken over by the next node.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// Creates the socket, mode 0600. One that a dead node left is replaced.
    ///
    /// # Errors
    ///
    /// Another node answers there, or the file cannot be made.
    pub async fn bind(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::runtime(format!("the control socket cannot be made: {error}"))
                .at(path.display())
                .fix("name another one: control-socket in the [node] section")
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            folders::create_private(folder).map_err(failed)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => {
                return Err(
                    Failure::runtime("a node is running already with this control socket")
                        .at(path.display())
                        .fix("stop it, or set another control-socket in the [node] section"),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let server = Self {
            listener,
            path: path.to_owned(),
        };
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(server)
    }

    /// Answers for ever.
    pub async fn serve<F, A>(&self, answer: F)
    where
        F: Fn(Request) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Answer> + Send,
    {
        let seats = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
        loop {
            let seat = std::sync::Arc::clone(&seats).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors: some program will end.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let answer = answer.clone();
            tokio::spawn(async move {
                // A program that goes away is no error of the node.
                let _ = converse(stream, answer).await;
                drop(seat);
            });
        }
    }
}

async fn converse<F, A>(stream: UnixStream, answer: F) -> io::Result<()>
where
    F: Fn(Request) -> A,
    A: Future<Output = Answer>,
{
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        (&mut reader)
            .take(REQUEST_MAX_BYTES)
            .read_until(b'\n', &mut line)
            .await?;
        if line.is_empty() {
            return Ok(());
        }
        let given = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => answer(request).await,
            Err(error) => Answer::Error {
                message: format!("not a request: {error}"),
                fix: None,
            },
        };
        let mut text = serde_json::to_vec(&given).map_err(io::Error::other)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
}

/// The other end.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects; `None` when no node runs there.
    ///
    /// # Errors
    ///
    /// The socket is there and may not be used.
    pub async fn try_connect(path: &Path) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(Self {
                stream: BufReader::new(stream),
                path: path.to_owned(),
            })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(
                Failure::runtime(format!("cannot reach the running node: {error}"))
                    .at(path.display())
                    .fix("run the command as the user who runs the node"),
            ),
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// No node runs there, or the socket may not be used.
    pub async fn connect(path: &Path) -> Result<Self, Failure> {
        Self::try_connect(path).await?.ok_or_else(|| {
            Failure::runtime("no node is running")
                .at(path.display())
                .fix("start one: wiremesh up\nor name its control socket: --socket FILE")
        })
    }

    /// Asks one thing.
    ///
    /// # Errors
    ///
    /// The node went away or answers something else than this program understands.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let gone = |error: io::Error| {
            Failure::runtime(format!("the running node does not answer: {error}"))
                .at(self.path.display())
        };
        let mut text = serde_json::to_vec(request).map_err(|error| gone(error.into()))?;
        text.push(b'\n');
        self.stream.get_mut().write_all(&text).await.map_err(gone)?;
        let mut line = Vec::new();
        let read = (&mut self.stream)
            .take(ANSWER_MAX_BYTES)
            .read_until(b'\n', &mut line)
            .await;
        if read.map_err(gone)? == 0 {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|error| {
            Failure::runtime(format!("the running node answers in another form: {error}"))
                .at(self.path.display())
                .fix("it is of another version; restart it")
        })
    }

    /// Asks for the status.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub async fn status(&mut self) -> Result<Status, Failure> {
        match self.ask(&Request::Status).await? {
            Answer::Status(status) => Ok(*status),
            other => Err(other.into_failure().at(self.path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::sample;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    async fn answer(request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(sample())),
            Request::Ping { target, .. } => Answer::error(target, None),
            other => Answer::error(format!("{other:?}"), None),
        }
    }

    #[tokio::test]
    async fn questions_get_answers_one_after_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("run/control.sock");
        let server = Arc::new(Server::bind(&path).await.expect("binds"));
        let mode =
            |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("has one")), 0o700);
        let serving = Arc::clone(&server);
        let task = tokio::spawn(async move { serving.serve(answer).await });
        let mut client = Client::connect(&path).await.expect("connects");
        assert_eq!(client.status().await.expect("answers"), sample());
        let ping = Request::Ping {
            target: "laptop".into(),
            payload_bytes: 1,
            timeout_ms: 1,
        };
        let error = Answer::Error {
            message: "laptop".into(),
            fix: None,
        };
        assert_eq!(client.ask(&ping).await.expect("answers"), error);
        // Nonsense gets an answer too, and the next question is still heard.
        client
            .stream
            .get_mut()
            .write_all(b"{\"request\":\"x\"}\n")
            .await
            .expect("written");
        let mut line = String::new();
        client.stream.read_line(&mut line).await.expect("read");
        assert!(line.contains("not a request"), "{line}");
        assert!(client.status().await.is_ok());

        let change = PolicyChange {
            static_kem: Some(true),
            ..PolicyChange::default()
        };
        for request in [
            Request::Policy,
            Request::SetPolicy(change),
            Request::Suites,
            Request::Pins { peer: None },
            Request::LowerPin {
                peer: "laptop".into(),
                to: "L1".into(),
            },
        ] {
            let answer = client.ask(&request).await.expect("answers");
            assert_eq!(answer, Answer::error(format!("{request:?}"), None));
        }

        let second = Server::bind(&path).await.expect_err("taken");
        assert!(second.what.contains("running already"));
        task.abort();
        let _ = task.await;
        drop(server);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn socket_of_a_dead_node_is_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        assert!(
            Client::try_connect(&path)
                .await
                .expect("no error")
                .is_none()
        );
        let failure = Client::connect(&path).await.expect_err("none");
        assert!(failure.to_string().contains("wiremesh up"));
        Server::bind(&path).await.expect("replaced");
    }
}
