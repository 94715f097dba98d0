//! `wiremesh receive`.
//!
//! Owns what a person sees of it: the question before something is overwritten, the new attempts
//! after the connection is lost, and the words at the end.

use crate::args::ReceiveArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::transfer::plan::Conflict;
use crate::transfer::receive::Stopped;
use crate::transfer::{self, Answer, Meter, Options, Overwrite, Received, Refusal, TransferError};
use crate::{node, say, units};
use std::collections::HashMap;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wiremesh::{Connection, Node, Ticket, TicketSecret};

const MADE_BY: &str = "wiremesh send";

/// Longest pause between two attempts to connect again.
const PAUSE_MAX: Duration = Duration::from_secs(10);

pub async fn run(args: ReceiveArgs) -> Result<(), Failure> {
    let ticket = node::parse_ticket(&args.ticket)?;
    let secret = node::ticket_secret(&ticket, MADE_BY)?;
    if !args.into.is_dir() {
        let into = args.into.display();
        return Err(Failure::input(format!("the folder {into} does not exist"))
            .at("the option --into")
            .fix(format!("mkdir -p {}", say::quoted(&into.to_string()))));
    }
    let options = Options {
        into: args.into.clone(),
        overwrite: overwrite(args.overwrite),
        room: None,
    };
    let node = node::bind(node::builder(&args.node)?).await?;
    let retry = Duration::from_secs(args.retry);
    let run = Run {
        node: &node,
        ticket,
        secret,
        options,
        retry,
    };
    // Without a connection there is nobody to say goodbye to.
    let connection = run.connect().await?;
    let result = run.until_done(connection).await;
    node.close().await;
    result
}

struct Run<'a> {
    node: &'a Node,
    ticket: Ticket,
    secret: TicketSecret,
    options: Options,
    retry: Duration,
}

impl Run<'_> {
    async fn until_done(&self, mut connection: Connection) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut bytes = 0;
        loop {
            let meter = Arc::new(Meter::default());
            let result = self.attempt(&connection, &meter).await;
            bytes += meter.snapshot().bytes_moved;
            let stopped = match result {
                Ok(received) => {
                    connection.close(0u32.into(), b"done");
                    return tell(&received, bytes, begun.elapsed());
                }
                Err(stopped) => stopped,
            };
            connection.close(1u32.into(), b"stopped");
            if !matches!(stopped.error, TransferError::Lost(_)) || self.retry.is_zero() {
                return Err(stopped_failure(&stopped));
            }
            say::note(format!(
                "{}; trying again (what arrived is kept)",
                stopped.error
            ));
            connection = self.connect_again(&stopped).await?;
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        tokio::select! {
            connection = self.node.connect(&self.ticket, transfer::PROTOCOL) => {
                connection.map_err(|error| node::connect_failure(&error, MADE_BY))
            }
            () = node::interrupted() => Err(Failure::interrupted()),
        }
    }

    async fn connect_again(&self, stopped: &Stopped) -> Result<Connection, Failure> {
        let lost = Instant::now();
        let mut pause = Duration::from_secs(1);
        loop {
            match self.connect().await {
                Ok(connection) => return Ok(connection),
                Err(failure) if failure.exit == crate::failure::Exit::Interrupted => {
                    return Err(Failure {
                        exit: failure.exit,
                        ..stopped_failure(stopped)
                    });
                }
                Err(_) if lost.elapsed() < self.retry => {}
                Err(_) => return Err(stopped_failure(stopped)),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = node::interrupted() => {
                    let exit = crate::failure::Exit::Interrupted;
                    return Err(Failure { exit, ..stopped_failure(stopped) });
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        connection: &Connection,
        meter: &Arc<Meter>,
    ) -> Result<Received, Stopped> {
        let (writer, reader) = connection.open_bi().await.map_err(|error| Stopped {
            error: TransferError::Lost(error.into()),
            complete: 0,
            part: None,
        })?;
        let progress = Progress::start(Arc::clone(meter));
        let result = transfer::receive(
            reader,
            writer,
            self.secret.as_bytes(),
            self.options.clone(),
            Arc::clone(meter),
            node::interrupted(),
        )
        .await;
        progress.finish().await;
        result
    }
}

fn tell(received: &Received, bytes: u64, took: Duration) -> Result<(), Failure> {
    if received.fetched > 0 {
        let speed = bytes as f64 / took.as_secs_f64().max(1e-6);
        say::note(format!(
            "received {}, {} in {}, {}; every hash is right",
            units::count(received.fetched, "file", "files"),
            units::bytes(bytes),
            units::span(took),
            units::rate(speed)
        ));
    }
    if received.kept > 0 {
        let kept = units::count(received.kept, "file was", "files were");
        say::note(format!("{kept} there already; the hash is equal"));
    }
    for name in &received.declined {
        say::note(format!("{name} is left as it was"));
    }
    if received.failed.is_empty() {
        return Ok(());
    }
    for (name, why) in &received.failed {
        say::warn(format!("{name}: {why}"));
    }
    let failed = units::count(received.failed.len() as u64, "file", "files");
    Err(Failure::runtime(format!("{failed} could not be received"))
        .fix(format!("try again: {}", say::this_command())))
}

fn stopped_failure(stopped: &Stopped) -> Failure {
    let error = &stopped.error;
    let what = error.to_string();
    let again = say::this_command();
    let failure = match error {
        TransferError::Interrupted => Failure {
            what,
            ..Failure::interrupted()
        },
        TransferError::Refused(Refusal::Secret) => {
            return Failure::input(what)
                .at("the argument TICKET")
                .fix("ask for the ticket that `wiremesh send` shows now");
        }
        TransferError::WouldOverwrite(_) => {
            return Failure::input(what).at("the target folder").fix(format!(
                "to replace them: {again} --overwrite\nor name another folder: --into FOLDER"
            ));
        }
        TransferError::InTheWay { .. } => {
            return Failure::input(what).fix("move it away, or name another folder: --into FOLDER");
        }
        _ => Failure::runtime(what),
    };
    if !error.is_resumable() {
        return failure;
    }
    let mut what = failure.what.clone();
    if stopped.complete > 0 {
        what += &format!(
            "; {} complete",
            units::count(stopped.complete, "file is", "files are")
        );
    }
    if let Some((path, safe)) = &stopped.part {
        what += &format!("; {} of {} are kept", units::bytes(*safe), path.display());
    }
    let room = match error {
        TransferError::DiskFull(_) => "make room, then ",
        _ => "",
    };
    Failure { what, ..failure }.fix(format!("{room}to go on where it stopped: {again}"))
}

/// Asks on a terminal; without one nothing is overwritten unless the user said so before.
fn overwrite(always: bool) -> Overwrite {
    if always {
        return Overwrite::Always;
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Overwrite::Refuse;
    }
    // A new attempt after a lost connection must not ask again.
    let given: Mutex<HashMap<String, Answer>> = Mutex::default();
    Overwrite::Ask(Arc::new(move |conflict| {
        let mut given = given.lock().expect("no code panics with this lock held");
        *given
            .entry(conflict.name.clone())
            .or_insert_with(|| ask(conflict))
    }))
}

fn ask(conflict: &Conflict) -> Answer {
    let age = if conflict.coming_is_newer {
        "newer"
    } else {
        "older"
    };
    let question = format!(
        "{} exists ({}); overwrite with the {age} one that comes ({})? [y]es [n]o [a]ll n[o]ne [q]uit: ",
        conflict.name,
        units::bytes(conflict.size_here),
        units::bytes(conflict.size_coming)
    );
    loop {
        let mut stderr = std::io::stderr();
        // A terminal that is gone gives the end of input below.
        let _ = stderr
            .write_all(question.as_bytes())
            .and_then(|()| stderr.flush());
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(1..) => {}
            _ => return Answer::Abort,
        }
        if let Some(answer) = answer_of(&line) {
            return answer;
        }
    }
}

fn answer_of(line: &str) -> Option<Answer> {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" => Some(Answer::Yes),
        "n" | "no" => Some(Answer::No),
        "a" | "all" => Some(Answer::All),
        "o" | "none" => Some(Answer::None),
        "q" | "quit" => Some(Answer::Abort),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn answers_are_words_or_their_letters() {
        assert_eq!(answer_of(" Y \n"), Some(Answer::Yes));
        assert_eq!(answer_of("none"), Some(Answer::None));
        assert_eq!(answer_of(""), None);
        assert_eq!(answer_of("maybe"), None);
    }

    #[test]
    fn ends_have_their_exit_codes_and_say_how_to_go_on() {
        let stopped = |error| Stopped {
            error,
            complete: 2,
            part: Some((PathBuf::from("big.iso"), 3 << 20)),
        };
        let full = stopped_failure(&stopped(TransferError::DiskFull("big.iso".into())));
        assert_eq!(full.exit.code(), 1);
        assert!(full.what.contains("disk is full") && full.what.contains("2 files are complete"));
        assert!(full.what.contains("3.0 MiB of big.iso are kept"), "{full}");
        assert!(
            full.fix
                .expect("a remedy")
                .starts_with("make room, then to go on")
        );

        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(
            stopped_failure(&stopped(TransferError::Lost(lost)))
                .exit
                .code(),
            1
        );
        let interrupted = stopped_failure(&stopped(TransferError::Interrupted));
        assert_eq!(interrupted.exit.code(), 130);
        assert!(interrupted.fix.is_some());
        let refused = TransferError::Refused(Refusal::Secret);
        assert_eq!(stopped_failure(&stopped(refused)).exit.code(), 2);
        let exists = TransferError::WouldOverwrite(vec!["a".into()]);
        let exists = stopped_failure(&stopped(exists));
        assert_eq!(exists.exit.code(), 2);
        assert!(exists.fix.expect("a remedy").contains("--overwrite"));
    }
}
