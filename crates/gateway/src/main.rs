//! The `sealgate` binary: configuration, wiring, listeners, command line, telemetry, hardening, shutdown.
//!
//! Everything that protects data is in the crates below it; this one decides what is started with which
//! settings, and is imported by nobody. [`manual`] holds the manual.

#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "it hands out the machine's clock and randomness, and measures its own requests"
)]

mod admin;
mod administration;
mod allocator;
mod assembly;
mod attach;
mod audit_log;
mod aws;
mod background;
mod cli;
mod client;
mod commands;
mod config;
mod credentials;
mod data_dir;
mod doctor;
mod door;
mod handed;
mod harden;
mod inspection;
mod known;
mod listener;
mod logging;
mod management_trail;
pub mod manual;
mod metrics;
mod nbd_front;
mod notify;
mod observers;
mod output;
mod pace;
mod passphrase;
mod rebuild;
mod refusal_reason;
mod refusals;
mod request_ids;
mod reseal;
mod reserve;
mod root_key;
mod scopes;
mod serve;
mod small_body;
#[cfg(test)]
mod tests;
mod throttle;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{AuditCommand, Cli, Command, ConfigCommand, VolumeCommand};
use config::Config;

fn main() -> ExitCode {
    // Before there is anything to be made huge.
    allocator::refuse_huge_pages();
    // Everything this process creates is for its user alone, whatever the shell's umask.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the chain of causes, without a backtrace.
            eprintln!("sealgate: {}", format!("{error:#}").replace('\n', " "));
            match error.downcast_ref::<attach::Lost>() {
                Some(_) => ExitCode::from(attach::Lost::STATUS),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let data_dir = |cli: &Cli| Config::load(&cli.overrides).map(|config| config.data_dir);
    match cli.command {
        Command::Serve(ref arguments) => serve::run(arguments.config(&cli.overrides)?),
        Command::Env => commands::env(&Config::load(&cli.overrides)?),
        Command::Config(ConfigCommand::Check(ref arguments)) => {
            output::text(&arguments.config(&cli.overrides)?.to_toml())
        }
        Command::Volume(VolumeCommand::Check { ref volume_id }) => {
            inspection::check(&Config::load(&cli.overrides)?, volume_id, cli.output)
        }
        Command::Volume(VolumeCommand::Repair {
            ref volume_id,
            accept_loss,
        }) => inspection::repair(
            &Config::load(&cli.overrides)?,
            volume_id,
            accept_loss,
            cli.output,
        ),
        Command::Volume(ref command) => {
            let data_dir = data_dir(&cli)?;
            block_on(commands::volume(&data_dir, command, cli.output))
        }
        Command::Key(ref command) => {
            let data_dir = data_dir(&cli)?;
            block_on(commands::key(&data_dir, command, cli.output))
        }
        Command::Job(ref command) => {
            let data_dir = data_dir(&cli)?;
            block_on(commands::job(&data_dir, command, cli.output))
        }
        Command::Root(ref command) => {
            let config = Config::load(&cli.overrides)?;
            config.check()?;
            harden::forbid_core_dumps()?;
            block_on(root_key::run(&config, command, cli.output))
        }
        Command::Audit(AuditCommand::Verify { ref folder }) => {
            audit_log::verify(&data_dir(&cli)?, folder.clone(), cli.output)
        }
        Command::Doctor {
            accept_older: Some(part),
            ..
        } => doctor::accept_older(&Config::load(&cli.overrides)?, part),
        Command::Doctor { check: true, .. } => doctor::check(&Config::load(&cli.overrides)?),
        Command::Doctor { adopt: true, .. } => doctor::adopt(&Config::load(&cli.overrides)?),
        Command::Doctor { .. } => rebuild::run(&Config::load(&cli.overrides)?, cli.output),
        Command::Attach(ref command) => attach::attach(&Config::load(&cli.overrides)?, command),
        Command::Detach(ref command) => attach::detach(command, cli.output),
        Command::Attached => attach::attached(cli.output),
        Command::Status => block_on(commands::status(&data_dir(&cli)?, cli.output)),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "sealgate",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
