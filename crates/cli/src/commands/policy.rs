//! `wiremesh policy`: shows or changes the security policy of the running node.

use crate::args::{PolicyArgs, Switch};
use crate::config::toml_file::policy_remedy;
use crate::control::{Answer, Client, Request};
use crate::failure::Failure;
use crate::security::{PolicyChange, PolicyForm};
use crate::term::Style;
use crate::{folders, say};
use wiremesh::{Level, Node, PolicyError, SetPolicyError};

pub async fn run(args: PolicyArgs) -> Result<(), Failure> {
    let socket = args
        .socket
        .clone()
        .map_or_else(folders::control_socket, Ok)?;
    let mut client = Client::connect(&socket).await?;
    let request = match args.changes() {
        true => Request::SetPolicy(PolicyChange {
            minimum: args.minimum.map(|level| level.to_string()),
            stage: args.stage.map(|stage| stage.to_string()),
            static_kem: args.static_kem.map(|switch| switch == Switch::On),
        }),
        false => Request::Policy,
    };
    let form = match client.ask(&request).await? {
        Answer::Policy(form) => form,
        other => return Err(other.into_failure()),
    };
    if args.json {
        let json = serde_json::to_string(&form);
        say::print(json.map_err(|error| Failure::runtime(error.to_string()))? + "\n")?;
    } else {
        say::print(form.draw(Style::stdout()))?;
    }
    if args.changes() {
        tell_what_it_means(&form);
    }
    Ok(())
}

fn tell_what_it_means(form: &PolicyForm) {
    if form.promises != Level::Classical.name() {
        say::note(
            "Peers remember the promise. To go back, the operator of each peer must run \
             `wiremesh pin lower`.",
        );
    }
    let text = form.as_configuration();
    say::note(format!(
        "Until the node ends. To keep it, write into its configuration:\n{text}"
    ));
}

/// The policy of the node.
pub fn current(node: &Node) -> Answer {
    Answer::Policy(PolicyForm::new(&node.policy()))
}

/// Changes the policy of the node.
pub fn change(node: &Node, change: &PolicyChange) -> Answer {
    let policy = match change.applied_to(node.policy()) {
        Ok(policy) => policy,
        Err(message) => return Answer::error(message, None),
    };
    match node.set_policy(policy) {
        Ok(()) => {
            tracing::info!(minimum = %policy.minimum, stage = %policy.stage, "new security policy");
            current(node)
        }
        Err(error) => {
            // It was asked for, and yet: the node's own is made when it starts.
            if matches!(error, SetPolicyError::Policy(PolicyError::NoStaticKey))
                && policy.static_kem
            {
                let fix = "add static-kem = true to [security] and restart the node";
                return Answer::error(
                    "this node has started without a static ML-KEM key",
                    Some(fix.to_owned()),
                );
            }
            let fix = match &error {
                SetPolicyError::Policy(error) => Some(policy_remedy(*error).to_owned()),
                _ => None,
            };
            Answer::error(error, fix)
        }
    }
}
