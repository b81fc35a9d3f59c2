//! The page as WebDriver sees it (W3C WebDriver, as much as the tests need). WebKitWebDriver starts the player itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vstack_api::transport::{Body, HttpTransport, Method, Request, Transport as _};

use super::process::Process;
use super::screen::Screen;
use super::{PATIENCE, until};

/// Key of an element's reference in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// A window of the player under remote control. The player ends when this is dropped.
pub struct Page {
    session: String,
    http: HttpTransport,
    runtime: Runtime,
    driver: Process,
}

impl Page {
    /// Starts the player on the screen.
    pub fn open(screen: &Screen, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Self {
        let port = free_port();
        let log = std::fs::File::create(log).expect("a log file");
        let mut command = Command::new("WebKitWebDriver");
        command
            .arg(format!("--port={port}"))
            .env("TAURI_WEBVIEW_AUTOMATION", "true");
        command.envs(environment.iter().copied());
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        screen.show(&mut command);
        let driver = Process::start(command);
        let runtime = Runtime::new().expect("a runtime");
        let http = HttpTransport::new();
        let base = format!("http://127.0.0.1:{port}");
        let (runtime, http) = until("WebDriver answers", PATIENCE, {
            let mut parts = Some((runtime, http));
            move || {
                let (runtime, http) = parts.take()?;
                let answers = call(&runtime, &http, Method::GET, &format!("{base}/status"), None).is_some();
                if answers {
                    return Some((runtime, http));
                }
                parts = Some((runtime, http));
                None
            }
        });
        let options = json!({ "binary": env!("CARGO_BIN_EXE_vstack-player"), "args": arguments });
        let wish = json!({ "capabilities": { "alwaysMatch": { "webkitgtk:browserOptions": options } } });
        let base = format!("http://127.0.0.1:{port}");
        let answer = call(
            &runtime,
            &http,
            Method::POST,
            &format!("{base}/session"),
            Some(&wish),
        );
        let answer = answer.expect("WebDriver starts the player");
        let id = answer["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {answer}"))
            .to_owned();
        Self {
            session: format!("{base}/session/{id}"),
            http,
            runtime,
            driver,
        }
    }

    fn post(&self, path: &str, body: &Value) -> Option<Value> {
        call(
            &self.runtime,
            &self.http,
            Method::POST,
            &format!("{}{path}", self.session),
            Some(body),
        )
    }

    /// Runs JavaScript in the page; what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
            .unwrap_or(Value::Null)
    }

    /// The player's process; `None` once it has ended.
    pub fn player_pid(&self) -> Option<u32> {
        let driver = self.driver.pid();
        let children = std::fs::read_to_string(format!("/proc/{driver}/task/{driver}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Clicks the element as a user would; it has to come first.
    pub fn click(&self, selector: &str) {
        let wish = json!({ "using": "css selector", "value": selector });
        until(&format!("a click on {selector}"), PATIENCE, || {
            let element = self.post("/element", &wish)?[ELEMENT].as_str()?.to_owned();
            self.post(&format!("/element/{element}/click"), &json!({}))
        });
    }

    /// An attribute of the first element that matches.
    pub fn attribute(&self, selector: &str, name: &str) -> Option<String> {
        let script = format!("return document.querySelector({selector:?})?.getAttribute({name:?}) ?? null");
        self.run(&script).as_str().map(str::to_owned)
    }

    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    pub fn count(&self, selector: &str) -> u64 {
        self.run(&format!("return document.querySelectorAll({selector:?}).length"))
            .as_u64()
            .unwrap_or(0)
    }

    /// Presses and releases a key with nothing focused.
    pub fn key(&self, key: &str) {
        let script = format!(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: {key:?}, bubbles: true, cancelable: true }}))"
        );
        self.run(&script);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        call(&self.runtime, &self.http, Method::DELETE, &self.session, None);
    }
}

/// The `value` of the answer; `None` when there is none or it is an error.
fn call(
    runtime: &Runtime,
    http: &HttpTransport,
    method: Method,
    url: &str,
    body: Option<&Value>,
) -> Option<Value> {
    let mut request = Request::new(method, url.to_owned());
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(Body::Bytes(body.to_string().into()));
    }
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE + Duration::from_secs(30), http.send(request))
            .await
            .ok()?
            .ok()?;
        let succeeded = answer.status < 400;
        let body = answer.bytes(MAX_ANSWER_BYTES).await.ok()?;
        let value: Value = serde_json::from_slice(&body).ok()?;
        if !succeeded {
            println!("WebDriver: {url}: {}", value["value"]["message"]);
        }
        succeeded.then(|| value["value"].clone())
    })
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
