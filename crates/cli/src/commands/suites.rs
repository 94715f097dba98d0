//! `wiremesh suites`: what this build speaks, and what the known network speaks.

use crate::args::SuitesArgs;
use crate::control::{Answer, Client, Request};
use crate::failure::Failure;
use crate::security::SuitesForm;
use crate::term::Style;
use crate::{folders, say};
use wiremesh::Node;

pub async fn run(args: SuitesArgs) -> Result<(), Failure> {
    let form = match running(&args).await? {
        Some(mut client) => match client.ask(&Request::Suites).await? {
            Answer::Suites(form) => form,
            other => return Err(other.into_failure()),
        },
        None => SuitesForm::of_build(),
    };
    if args.json {
        let json = serde_json::to_string(&form);
        return say::print(json.map_err(|error| Failure::runtime(error.to_string()))? + "\n");
    }
    say::print(form.draw(Style::stdout()))?;
    if form.peers.is_none() {
        say::note("No node is running: this is what the program speaks.");
    }
    Ok(())
}

/// A node that was named must be there; otherwise the build alone is shown.
async fn running(args: &SuitesArgs) -> Result<Option<Client>, Failure> {
    match &args.socket {
        Some(socket) => Client::connect(socket).await.map(Some),
        None => Client::try_connect(&folders::control_socket()?).await,
    }
}

/// What the node and its peers speak.
pub fn answer(node: &Node) -> Answer {
    Answer::Suites(SuitesForm::of_node(&node.policy(), &node.known_suites()))
}
