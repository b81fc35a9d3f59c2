//! The network emulator as a process: paths from a plan, looked at and changed by HTTP while its script runs.
//!
//! | call | does |
//! |---|---|
//! | `GET /paths` | all paths: addresses, profile, faults, connections, bytes |
//! | `GET /paths/{name}` | one |
//! | `PUT /paths/{name}` | `{"profile"?, "faults"?}`: what is given replaces what is there |
//! | `POST /paths/{name}/clear`, `POST /clear` | one path, or all, as the plan began them |
//!
//! A name that is not there is 404 `not_found`; a value that makes no sense 422 `invalid_field`, naming the field, and
//! nothing changes. It listens on loopback only, as everything that anybody may use.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio_util::sync::CancellationToken;
use vstack_api::ErrorCode;
use vstack_emulator::{Change, EmulatorError, Lab, LabError, PathView, Plan};

use crate::http::{Answer, Refusal, StrictJson, may_be_open, refuse};
use crate::metrics::Metrics;
use crate::role::{Running, Site, StartError, listen};

/// Starts all paths of `plan` and the server that changes them. The script begins with [`Lab::play`].
///
/// # Errors
/// An address is taken, or not on loopback.
pub async fn start(plan: &Plan) -> Result<(Running, Arc<Lab>), StartError> {
    let listeners = plan.paths.iter().map(|path| path.listen);
    if let Some(open) = listeners
        .chain([plan.control])
        .find(|address| !may_be_open(address.ip()))
    {
        return Err(StartError::Missing {
            what: format!("a loopback address for {open}"),
            remedy: "anybody may use the emulator's paths, so they listen on 127.0.0.1 or ::1 only"
                .to_owned(),
        });
    }
    let listener = listen(plan.control).await?;
    let lab = Arc::new(Lab::start(plan).await.map_err(not_started)?);
    let site = Site::new(routes(Arc::clone(&lab)), Metrics::new());
    let running = Running::serve("emulator", None, listener, site, CancellationToken::new());
    let running = running.map_err(|cause| StartError::Listen {
        address: plan.control,
        holder: String::new(),
        cause,
    })?;
    Ok((running, lab))
}

fn not_started(error: EmulatorError) -> StartError {
    let EmulatorError::Listen { addr, source } = error;
    StartError::Listen {
        address: addr,
        holder: String::new(),
        cause: source,
    }
}

fn routes(lab: Arc<Lab>) -> Router {
    Router::new()
        .route("/paths", get(list))
        .route("/paths/{name}", get(one).put(set))
        .route("/paths/{name}/clear", post(clear))
        .route("/clear", post(clear_all))
        .with_state(lab)
}

async fn list(State(lab): State<Arc<Lab>>) -> Json<Vec<PathView>> {
    Json(lab.list())
}

async fn one(State(lab): State<Arc<Lab>>, Path(name): Path<String>) -> Answer<Json<PathView>> {
    answered(lab.path(&name))
}

async fn set(
    State(lab): State<Arc<Lab>>,
    Path(name): Path<String>,
    StrictJson(change): StrictJson<Change>,
) -> Answer<Json<PathView>> {
    answered(lab.set(&name, &change))
}

async fn clear(State(lab): State<Arc<Lab>>, Path(name): Path<String>) -> Answer<Json<PathView>> {
    answered(lab.clear(&name))
}

async fn clear_all(State(lab): State<Arc<Lab>>) -> Answer<Json<Vec<PathView>>> {
    for path in lab.list() {
        lab.clear(&path.name).map_err(refusal)?;
    }
    Ok(Json(lab.list()))
}

fn answered(outcome: Result<PathView, LabError>) -> Answer<Json<PathView>> {
    outcome.map(Json).map_err(refusal)
}

fn refusal(error: LabError) -> Refusal {
    let code = match error {
        LabError::NoSuchPath { .. } => ErrorCode::NotFound,
        LabError::Senseless(_) => ErrorCode::InvalidField,
    };
    refuse(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_api::Problem;

    const PLAN: &str = r#"
        [[path]]
        name = "a"
        node = "127.0.0.1:9"
        profile = { down_mbps = 8.0 }
        [[path]]
        name = "b"
        node = "127.0.0.1:9"
    "#;

    struct Control {
        url: String,
        http: reqwest::Client,
        running: Running,
    }

    impl Control {
        async fn start() -> Self {
            let (running, _) = start(&Plan::from_toml(PLAN).unwrap()).await.unwrap();
            Self {
                url: running.url.clone(),
                http: reqwest::Client::new(),
                running,
            }
        }

        async fn send(&self, method: reqwest::Method, path: &str, body: &str) -> (u16, String) {
            let request = self.http.request(method, format!("{}{path}", self.url));
            let request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }

        async fn check_refused(&self, path: &str, body: &str, code: ErrorCode, says: &str) {
            let (status, text) = self.send(reqwest::Method::PUT, path, body).await;
            let problem: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!((status, problem.code), (code.status(), code), "{body}: {text}");
            assert!(problem.detail.contains(says), "{text}");
        }
    }

    #[tokio::test]
    async fn paths_are_listed_changed_and_cleared() {
        let control = Control::start().await;
        let body = r#"{"faults":[{"kind":"hang","at_share":0.95}]}"#;
        let (status, text) = control.send(reqwest::Method::PUT, "/paths/a", body).await;
        let view: PathView = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, view.faults.len(), view.profile.down_mbps),
            (200, 1, Some(8.0))
        );
        let (_, text) = control.send(reqwest::Method::GET, "/paths", "").await;
        let all: Vec<PathView> = serde_json::from_str(&text).unwrap();
        assert_eq!((all[0].faults.len(), all[1].faults.len()), (1, 0));
        let (status, text) = control.send(reqwest::Method::POST, "/paths/a/clear", "").await;
        let view: PathView = serde_json::from_str(&text).unwrap();
        assert_eq!((status, view.faults), (200, Vec::new()));
        control.send(reqwest::Method::PUT, "/paths/b", body).await;
        let (_, text) = control.send(reqwest::Method::POST, "/clear", "").await;
        let all: Vec<PathView> = serde_json::from_str(&text).unwrap();
        assert!(all.iter().all(|path| path.faults.is_empty()));
        control.running.stop().await;
    }

    #[tokio::test]
    async fn bad_input_changes_nothing_and_has_a_code_that_stays() {
        let control = Control::start().await;
        control
            .check_refused("/paths/c", "{}", ErrorCode::NotFound, "there are: a, b")
            .await;
        for (body, code, says) in [
            (r#"{"faults":["#, ErrorCode::BadRequest, "no JSON"),
            (r#"{"fault":[]}"#, ErrorCode::InvalidField, "fault"),
            (r#"{"faults":[{"kind":"melt"}]}"#, ErrorCode::InvalidField, "melt"),
            (
                r#"{"profile":{"delay_ms":5},"faults":[{"kind":"corrupt","chance":2}]}"#,
                ErrorCode::InvalidField,
                "faults[0].chance",
            ),
            (
                r#"{"profile":{"down_mbps":-1}}"#,
                ErrorCode::InvalidField,
                "profile.down_mbps",
            ),
        ] {
            control.check_refused("/paths/a", body, code, says).await;
        }
        let (_, text) = control.send(reqwest::Method::GET, "/paths/a", "").await;
        let view: PathView = serde_json::from_str(&text).unwrap();
        assert_eq!((view.profile.delay_ms, view.profile.down_mbps), (0, Some(8.0)));
        control.running.stop().await;
    }

    #[tokio::test]
    async fn a_path_that_everybody_could_reach_is_refused() {
        let open = PLAN.replacen("name = \"a\"", "name = \"a\"\nlisten = \"0.0.0.0:0\"", 1);
        let error = start(&Plan::from_toml(&open).unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}
