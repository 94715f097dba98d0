//! One node of the demo, in this process or in one of its own.
//!
//! Owns its life: policy at run time, restart, kill and start again. The process of its own is
//! this program again; it is told what to do on its standard input.

use super::link::{PROTOCOL, echo};
use super::policy;
use crate::failure::Failure;
use crate::{keys, node, say};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex as Lock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use wiremesh::{Admission, Connection, Node, SecretKey, Stage, Ticket};

/// How long a restarted node stays away.
const AWAY: Duration = Duration::from_millis(500);
/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a member lives.
enum Home {
    Here(Node),
    Process(Child),
    Nowhere,
}

/// One node. Key and folder stay while it is restarted.
pub struct Member {
    key: SecretKey,
    folder: PathBuf,
    ticket: Lock<Option<Ticket>>,
    home: Mutex<Home>,
}

impl Member {
    fn new(number: usize) -> Result<Self, Failure> {
        let mut key = [0; 32];
        keys::random(&mut key)?;
        let name = format!("wiremesh-upgrade-{}-{}", std::process::id(), number + 1);
        Ok(Self {
            key: SecretKey::from_bytes(key),
            folder: std::env::temp_dir().join(name),
            ticket: Lock::default(),
            home: Mutex::new(Home::Nowhere),
        })
    }

    /// A node in this process that lists the old suite only.
    pub async fn here(number: usize) -> Result<Self, Failure> {
        let member = Self::new(number)?;
        member.open(Stage::OldOnly).await?;
        Ok(member)
    }

    /// The same in a process of its own.
    pub async fn process(number: usize) -> Result<Self, Failure> {
        let member = Self::new(number)?;
        member.revive(Stage::OldOnly).await?;
        Ok(member)
    }

    /// What others need to connect to it.
    pub fn ticket(&self) -> Ticket {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.clone().expect("a member has been started once")
    }

    /// Its port, once it had one: others know it.
    fn port(&self) -> u16 {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = ticket.as_ref().and_then(|ticket| ticket.endpoints.first());
        match endpoint {
            Some(wiremesh::Endpoint::Address(address)) => address.port(),
            _ => 0,
        }
    }

    fn set_ticket(&self, ticket: Ticket) {
        *self.ticket.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
    }

    async fn open(&self, stage: Stage) -> Result<(), Failure> {
        let node = open(self.key.clone(), &self.folder, self.port(), stage).await?;
        self.set_ticket(node.ticket());
        *self.home.lock().await = Home::Here(node);
        Ok(())
    }

    /// Connects to another member, if both are there.
    pub async fn connect(&self, to: &Member, protocol: &str) -> Option<Connection> {
        let node = match &*self.home.lock().await {
            Home::Here(node) => node.clone(),
            _ => return None,
        };
        node.connect(&to.ticket(), protocol).await.ok()
    }

    /// Moves to a stage at run time.
    pub async fn set_stage(&self, stage: Stage) -> Result<(), Failure> {
        match &mut *self.home.lock().await {
            Home::Here(node) => node
                .set_policy(policy(stage))
                .map_err(|error| Failure::runtime(error.to_string())),
            Home::Process(child) => {
                let line = format!("{stage}\n");
                let input = child.stdin.as_mut().ok_or_else(gone)?;
                input.write_all(line.as_bytes()).await.map_err(|_| gone())
            }
            Home::Nowhere => Err(gone()),
        }
    }

    /// Closes the node, and starts it anew at a stage.
    pub async fn restart(&self, stage: Stage) -> Result<(), Failure> {
        if let Home::Here(node) = std::mem::replace(&mut *self.home.lock().await, Home::Nowhere) {
            node.close().await;
        }
        tokio::time::sleep(AWAY).await;
        self.open(stage).await
    }

    /// Kills the process with signal 9.
    pub async fn kill(&self) -> Result<(), Failure> {
        if let Home::Process(mut child) =
            std::mem::replace(&mut *self.home.lock().await, Home::Nowhere)
        {
            child.kill().await.map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Starts the process, or starts it again.
    pub async fn revive(&self, stage: Stage) -> Result<(), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::runtime(format!("this program is not found: {error}")))?;
        let mut child = Command::new(program)
            .args(["demo", "--upgrade-member"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::runtime(format!("a process cannot be started: {error}")))?;
        let folder = self.folder.display();
        let first = format!(
            "{}\n{folder}\n{}\n{stage}\n",
            *self.key.to_base64(),
            self.port()
        );
        let input = child.stdin.as_mut().ok_or_else(gone)?;
        input
            .write_all(first.as_bytes())
            .await
            .map_err(|_| gone())?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(gone)?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.ok().and_then(Result::ok).flatten().ok_or_else(gone)?;
        self.set_ticket(node::parse_ticket(&line)?);
        *self.home.lock().await = Home::Process(child);
        Ok(())
    }

    /// Ends the node and removes what it kept.
    pub async fn stop(&self) {
        match std::mem::replace(&mut *self.home.lock().await, Home::Nowhere) {
            Home::Here(node) => node.close().await,
            // It is told by the end of its input, and given up if it does not listen.
            Home::Process(mut child) => {
                drop(child.stdin.take());
                let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
            }
            Home::Nowhere => {}
        }
        // What is left of a folder is in the system's folder for such.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn gone() -> Failure {
    Failure::runtime("a node of the demo has ended too early")
}

async fn open(key: SecretKey, folder: &Path, port: u16, stage: Stage) -> Result<Node, Failure> {
    let builder = Node::builder()
        .secret_key(key)
        .state_dir(folder)
        .protocol(PROTOCOL)
        .security(policy(stage))
        .admission(Admission::AllowAll {
            provisional_max: 64,
        })
        .listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    let node = node::bind(builder).await?;
    let answering = node.clone();
    tokio::spawn(async move {
        while let Some(connection) = answering.accept().await {
            tokio::spawn(echo(connection));
        }
    });
    Ok(node)
}

/// The life of the process: four lines in (key, folder, port, stage), a ticket out, and then a
/// stage per line until the end of the input.
///
/// # Errors
///
/// When a line is not what it must be, or the node does not start.
pub async fn serve() -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let wrong =
        || Failure::input("this is a part of `wiremesh demo --upgrade`, and not for people");
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(lines.next_line().await.ok().flatten().ok_or_else(wrong)?);
    }
    let [key, folder, port, stage] = first.as_slice() else {
        return Err(wrong());
    };
    let key = key.parse().map_err(|_| wrong())?;
    let port = port.parse().map_err(|_| wrong())?;
    let stage = stage.parse().map_err(|_| wrong())?;
    let node = open(key, Path::new(folder), port, stage).await?;
    say::print(format!("{}\n", node.ticket()))?;
    while let Ok(Some(line)) = lines.next_line().await {
        let stage = line.parse().map_err(|_| wrong())?;
        node.set_policy(policy(stage))
            .map_err(|error| Failure::runtime(error.to_string()))?;
    }
    node.close().await;
    Ok(())
}
