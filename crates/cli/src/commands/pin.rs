//! `wiremesh pin`: what peers have promised, in the running node or in its state folder.
//!
//! Owns the question before a pin is lowered.

use super::ping::id_of;
use crate::args::{PinLowerArgs, PinPlace, PinShowArgs};
use crate::config::{self, Config};
use crate::control::{Answer, Client, Request};
use crate::failure::Failure;
use crate::security::{PinForm, PinsForm};
use crate::term::Style;
use crate::{folders, say, suggest};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use wiremesh::{Level, Node, NodeId, Pin, PinStore, StateError};

pub async fn show(args: PinShowArgs) -> Result<(), Failure> {
    let form = match Place::find(&args.place).await? {
        Place::Running(mut client) => ask(&mut client, args.peer).await?,
        Place::Folder { folder, names } => match open(&folder)? {
            Some(store) => chosen(args.peer.as_deref(), store.pins().collect(), &names)?,
            None => chosen(args.peer.as_deref(), Vec::new(), &names)?,
        },
    };
    if args.json {
        let json = serde_json::to_string(&form);
        return say::print(json.map_err(|error| Failure::runtime(error.to_string()))? + "\n");
    }
    say::print(form.draw(Style::stdout(), unix_now()))
}

pub async fn lower(args: PinLowerArgs) -> Result<(), Failure> {
    let mut place = Place::find(&args.place).await?;
    let mut store = None;
    let pins = match &mut place {
        Place::Running(client) => ask(client, Some(args.peer.clone())).await?.pins,
        Place::Folder { folder, names } => {
            store = open(folder)?;
            let pins = store.iter().flat_map(PinStore::pins).collect();
            chosen(Some(&args.peer), pins, names)?.pins
        }
    };
    let pin = pins.first().filter(|pin| pin.level > args.to.to_string());
    let Some(pin) = pin else {
        return Err(nothing_to_lower(&args.peer, args.to));
    };
    confirm(&args, pin)?;
    match (place, store) {
        (Place::Running(mut client), _) => {
            let request = Request::LowerPin {
                peer: pin.node_id.clone(),
                to: args.to.to_string(),
            };
            match client.ask(&request).await? {
                Answer::Pins(_) => {}
                other => return Err(other.into_failure()),
            }
        }
        (Place::Folder { folder, .. }, Some(mut store)) => {
            let id = id_of(&pin.node_id).ok_or_else(|| nothing_to_lower(&args.peer, args.to))?;
            store
                .lower(&id, args.to)
                .map_err(|error| state_failure(&error, &folder))?;
        }
        (Place::Folder { .. }, None) => return Err(nothing_to_lower(&args.peer, args.to)),
    }
    let (label, to) = (pin.label(), args.to);
    say::note(format!(
        "{label} may come with {to} again, as far as the policy allows: see wiremesh policy."
    ));
    Ok(())
}

fn nothing_to_lower(peer: &str, to: Level) -> Failure {
    Failure::input(format!("{peer} has promised nothing above {to}"))
        .at("the argument PEER")
        .fix("wiremesh pin show tells what peers have promised")
}

fn confirm(args: &PinLowerArgs, pin: &PinForm) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(
            Failure::input("there is no terminal to ask at, and --yes was not given")
                .fix("read wiremesh pin lower --help, then repeat it with --yes"),
        );
    }
    let heard = pin.heard(unix_now());
    say::note(format!(
        "{} ({}) has promised {}, heard {heard}.\n\
         Below that no application data flows with it now. If you lower the pin, it can come with \
         {} again,\nand so can an attacker who stands between and strips the better offer.\n\
         Has its operator told you, on another way, that they went back?",
        pin.label(),
        pin.node_id,
        pin.level,
        args.to
    ));
    let mut stderr = std::io::stderr();
    // A terminal that is gone gives the end of input below.
    let _ = write!(stderr, "Lower the pin to {}? [y/N]: ", args.to).and_then(|()| stderr.flush());
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Failure::runtime("nothing was changed")),
    }
}

/// Where the pins are.
enum Place {
    Running(Client),
    Folder {
        folder: PathBuf,
        names: Vec<(String, NodeId)>,
    },
}

impl Place {
    async fn find(place: &PinPlace) -> Result<Self, Failure> {
        if let Some(socket) = &place.socket {
            return Client::connect(socket).await.map(Self::Running);
        }
        let configured = configured(place)?;
        let socket = match &configured {
            Some(config) => config.control_socket.clone(),
            None => folders::control_socket()?,
        };
        if let Some(client) = Client::try_connect(&socket).await? {
            return Ok(Self::Running(client));
        }
        let Some(config) = configured else {
            let folder = folders::state()?;
            let names = Vec::new();
            return Ok(Self::Folder { folder, names });
        };
        let named = |peer: config::Peer| peer.name.map(|name| (name, peer.node_id));
        Ok(Self::Folder {
            folder: config.state_dir,
            names: config.peers.into_iter().filter_map(named).collect(),
        })
    }
}

/// The configuration, if one was named or the default one is there.
fn configured(place: &PinPlace) -> Result<Option<Config>, Failure> {
    match &place.config {
        Some(path) => config::load(path).map(Some),
        None => {
            let path = config::default_path()?;
            path.exists().then(|| config::load(&path)).transpose()
        }
    }
}

async fn ask(client: &mut Client, peer: Option<String>) -> Result<PinsForm, Failure> {
    match client.ask(&Request::Pins { peer }).await? {
        Answer::Pins(form) => Ok(form),
        other => Err(other.into_failure().at("the argument PEER")),
    }
}

/// Opens the pins of a folder; `None` if no node has ever kept something there.
fn open(folder: &Path) -> Result<Option<PinStore>, Failure> {
    if !folder.exists() {
        return Ok(None);
    }
    PinStore::open(folder)
        .map(Some)
        .map_err(|error| state_failure(&error, folder))
}

fn state_failure(error: &StateError, folder: &Path) -> Failure {
    let failure = Failure::runtime(error.to_string()).at(folder.display());
    match error {
        StateError::InUse(_) => {
            failure.fix("ask that node: --socket FILE names its control socket")
        }
        _ => failure,
    }
}

fn chosen(
    wanted: Option<&str>,
    pins: Vec<(NodeId, Pin)>,
    names: &[(String, NodeId)],
) -> Result<PinsForm, Failure> {
    pick(wanted, pins, names)
        .map_err(|(message, fix)| Failure::input(message).at("the argument PEER").fix(fix))
}

/// The pins of one node or of all.
fn pick(
    wanted: Option<&str>,
    pins: Vec<(NodeId, Pin)>,
    names: &[(String, NodeId)],
) -> Result<PinsForm, (String, String)> {
    let wanted = wanted.map(|text| find(text, names)).transpose()?;
    let named = |id: &NodeId| names.iter().find(|(_, known)| known == id);
    let forms = pins
        .into_iter()
        .filter(|(id, _)| wanted.is_none_or(|wanted| wanted == *id))
        .map(|(id, pin)| PinForm::new(id, &pin, named(&id).map(|(name, _)| name.clone())));
    Ok(PinsForm {
        version: 1,
        pins: forms.collect(),
    })
}

fn find(text: &str, names: &[(String, NodeId)]) -> Result<NodeId, (String, String)> {
    let by_name = names.iter().find(|(name, _)| name == text);
    by_name
        .map(|(_, id)| *id)
        .or_else(|| id_of(text))
        .ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            let fix = match known.is_empty() {
                true => "name it by its node id or ticket".to_owned(),
                false => suggest::remedy(text, &known),
            };
            (format!("no peer is {text:?}"), fix)
        })
}

fn names_of(node: &Node) -> Vec<(String, NodeId)> {
    let peers = node.status().peers.into_iter();
    peers
        .filter_map(|peer| Some((peer.name?, peer.node_id)))
        .collect()
}

/// The pins of a running node.
pub fn answer(node: &Node, peer: Option<&str>) -> Answer {
    match pick(peer, node.pins(), &names_of(node)) {
        Ok(form) => Answer::Pins(form),
        Err((message, fix)) => Answer::error(message, Some(fix)),
    }
}

/// Lowers a pin of a running node.
pub fn answer_lower(node: &Node, peer: &str, to: &str) -> Answer {
    let to: Level = match to.parse() {
        Ok(level) => level,
        Err(error) => return Answer::error(format!("{to:?}: {error}"), None),
    };
    let id = match find(peer, &names_of(node)) {
        Ok(id) => id,
        Err((message, fix)) => return Answer::error(message, Some(fix)),
    };
    if !node.lower_pin(id, to) {
        return Answer::error(format!("{peer} has promised nothing above {to}"), None);
    }
    tracing::warn!(peer = %id, level = %to, "the operator lowered a pin");
    answer(node, Some(&id.to_string()))
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
