//! `vstack emulate`: network paths in front of nodes, and the commands that change them while it runs.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vstack_api::client::Endpoint;
use vstack_api::transport::{Body, Method};
use vstack_emulator::{Change, Event, Fault, PathView, Plan, Profile};
use vstack_server::emulator;

use crate::args::{Control, EmulateCommand, EmulateOptions};
use crate::failure::Failure;
use crate::output::Output;
use crate::{signals, table};

/// The emulator answers from memory.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Printed once everything listens.
#[derive(Debug, Serialize)]
struct Ready {
    control_url: String,
    pid: u32,
    paths: Vec<PathView>,
}

pub(crate) async fn run(options: EmulateOptions, output: &Output) -> Result<(), Failure> {
    match (options.command, options.config) {
        (Some(command), _) => order(command, output).await,
        (None, Some(file)) => serve(&file, output).await,
        (None, None) => Err(Failure::Usage("--config FILE is missing".to_owned())),
    }
}

async fn serve(file: &Path, output: &Output) -> Result<(), Failure> {
    let unusable = |reason: &dyn std::fmt::Display| Failure::Usage(format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
    let plan = Plan::from_toml(&text).map_err(|error| unusable(&error))?;
    let stop = signals::stop_token()?;
    let (running, lab) = emulator::start(&plan).await?;
    let ready = Ready {
        control_url: running.url.clone(),
        pid: std::process::id(),
        paths: lab.list(),
    };
    output.say(&ready, || {
        let orders = format!("vstack emulate list --control {}", ready.control_url);
        format!("{}\n\nCtrl-C stops it; {orders}", described(&ready.paths))
    });
    let script = lab.play(&plan.events, |event| output.say(event, || told(event)));
    stop.run_until_cancelled(script).await;
    stop.cancelled().await;
    running.stop().await;
    Ok(())
}

fn told(event: &Event) -> String {
    let paths = event.path.as_deref().unwrap_or("all paths");
    let profile = event.profile.as_ref().map(profile_text);
    let faults = event.faults.as_deref().map(faults_text);
    let changes: Vec<String> = [profile, faults].into_iter().flatten().collect();
    format!("{} ms: {paths}: {}", event.at_ms, changes.join("; "))
}

async fn order(command: EmulateCommand, output: &Output) -> Result<(), Failure> {
    match command {
        EmulateCommand::List { control } => {
            let paths: Vec<PathView> = call(&control, Method::GET, "/paths", None).await?;
            output.say(&paths, || described(&paths));
        }
        EmulateCommand::Set {
            path,
            profile,
            faults,
            control,
        } => {
            let change = Change {
                profile: parsed::<Profile>("--profile", profile.as_deref())?,
                faults: parsed::<Vec<Fault>>("--faults", faults.as_deref())?,
            };
            let view: PathView =
                call(&control, Method::PUT, &format!("/paths/{path}"), Some(&change)).await?;
            output.say(&view, || described(std::slice::from_ref(&view)));
        }
        EmulateCommand::Clear { path: None, control } => {
            let paths: Vec<PathView> = call(&control, Method::POST, "/clear", None).await?;
            output.say(&paths, || described(&paths));
        }
        EmulateCommand::Clear {
            path: Some(path),
            control,
        } => {
            let view: PathView = call(&control, Method::POST, &format!("/paths/{path}/clear"), None).await?;
            output.say(&view, || described(std::slice::from_ref(&view)));
        }
    }
    Ok(())
}

fn parsed<T: DeserializeOwned>(flag: &str, text: Option<&str>) -> Result<Option<T>, Failure> {
    let parsed = text.map(serde_json::from_str).transpose();
    parsed.map_err(|error| Failure::Usage(format!("{flag}: {error}")))
}

async fn call<T: DeserializeOwned>(
    control: &Control,
    method: Method,
    path: &str,
    change: Option<&Change>,
) -> Result<T, Failure> {
    let endpoint = Endpoint::new(&control.url);
    let mut request = endpoint.request(method, path);
    if let Some(change) = change {
        let body = serde_json::to_vec(change).expect("a change has string keys and finite numbers");
        request = request
            .header("content-type", "application/json")
            .body(Body::Bytes(body.into()));
    }
    let answer = endpoint.json(request, CALL_TIMEOUT).await;
    answer.map_err(|error| {
        let mut problem = error.into_problem();
        if problem.code == vstack_api::ErrorCode::Unreachable {
            problem
                .detail
                .push_str(". Is `vstack emulate --config FILE` running there?");
        }
        problem.into()
    })
}

fn described(paths: &[PathView]) -> String {
    let row = |path: &PathView| {
        vec![
            path.name.clone(),
            path.url.clone(),
            path.node.clone(),
            profile_text(&path.profile),
            faults_text(&path.faults),
            path.connections.to_string(),
            table::size(path.down_bytes),
        ]
    };
    let rows: Vec<Vec<String>> = paths.iter().map(row).collect();
    table::table(
        &[
            "path",
            "address",
            "node",
            "profile",
            "faults",
            "connections",
            "to clients",
        ],
        &rows,
    )
}

fn profile_text(profile: &Profile) -> String {
    let limit = |mbps: Option<f64>| mbps.map_or_else(|| "any".to_owned(), |mbps| format!("{mbps}"));
    format!(
        "{}/{} Mbit/s, {}±{} ms",
        limit(profile.down_mbps),
        limit(profile.up_mbps),
        profile.delay_ms,
        profile.jitter_ms
    )
}

fn faults_text(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return "none".to_owned();
    }
    let texts = faults
        .iter()
        .filter_map(|fault| serde_json::to_string(fault).ok());
    texts.collect::<Vec<_>>().join(" ")
}
