//! The subcommands.
//!
//! Owns the way from arguments to a command, and from its end to an exit code.

mod bench;
mod demo;
#[cfg(target_os = "linux")]
mod exec;
mod export;
mod forward;
mod import;
mod install;
mod key;
mod offer;
mod pin;
pub(crate) mod ping;
mod pipe;
mod policy;
mod proxy;
mod publish;
mod receive;
mod send;
mod show;
mod subscribe;
mod suites;
pub(crate) mod up;
mod upgrade;
mod wg;

use crate::args::{Cli, Command, KeyCommand, PinCommand, from_other_name};
use crate::config::default_text::DEFAULT_TEXT;
use crate::failure::Failure;
use crate::say;
use clap::Parser;
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(from_other_name(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that cannot be printed cannot be told about either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    #[cfg(target_os = "linux")]
    if let Command::Exec(args) = &cli.command
        && args.inside
    {
        return exec::inside::main(&args.program);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::runtime(format!("cannot start: {error}")).report();
        }
    };
    let result = runtime.block_on(run(cli.command));
    // A thread that waits for standard input would keep the program.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        #[cfg(target_os = "linux")]
        Command::Exec(args) => return exec::run(args).await,
        Command::Demo(args) if args.upgrade_member => upgrade::serve().await,
        Command::Demo(args) if args.upgrade => upgrade::run().await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Send(args) => send::run(args).await,
        Command::Receive(args) => receive::run(args).await,
        Command::Pipe(args) => pipe::run(args).await,
        Command::Publish(args) => publish::run(args).await,
        Command::Subscribe(args) => subscribe::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Ping(args) => ping::run(args).await,
        Command::Proxy(args) => proxy::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Key(KeyCommand::New(args)) => key::new(args),
        Command::Key(KeyCommand::Show(args)) => key::show(args),
        Command::Ticket(args) => show::ticket(args).await,
        Command::Up(args) => up::run(args).await,
        Command::Status(args) => show::status(args).await,
        Command::Policy(args) => policy::run(args).await,
        Command::Suites(args) => suites::run(args).await,
        Command::Pin(PinCommand::Show(args)) => pin::show(args).await,
        Command::Pin(PinCommand::Lower(args)) => pin::lower(args).await,
        Command::Install(args) => install::run(&args),
        Command::Wg(args) => wg::run(args).await,
        Command::Import(args) => import::run(args),
        Command::Export(args) => export::run(args),
        Command::Config => say::print(DEFAULT_TEXT),
    };
    done.map(|()| ExitCode::SUCCESS)
}
