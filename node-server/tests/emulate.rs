//! `vstack emulate` as its users meet it: a file with a script, orders by the command line, and refusals of what makes no
//! sense.

#![allow(clippy::panic, reason = "a helper that fails is a test that fails")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use common::process::{Answer, Lines, Process, finish};
use common::{text, vstack};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"0123456789";

/// Answers every request with [`BODY`] and closes.
fn node() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("it listens"));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                BODY.len()
            );
            let answer = [head.as_bytes(), BODY].concat();
            // Its client may be gone.
            let _ = stream.get_mut().write_all(&answer);
        }
    });
    addr
}

struct Emulate {
    _process: Process,
    lines: Lines,
    ready: Value,
    _folder: tempfile::TempDir,
}

fn written(config: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("emulate.toml");
    std::fs::write(&file, config).expect("a file");
    (folder, file)
}

impl Emulate {
    fn start(config: &str) -> Self {
        let (folder, file) = written(config);
        let mut command = vstack();
        command.args(["emulate", "--json", "--config", text(&file)]);
        let (process, lines) = Process::start(command);
        let ready = lines.next(WITHIN).expect("it says that it is ready");
        Self {
            _process: process,
            lines,
            ready,
            _folder: folder,
        }
    }

    fn order(&self, arguments: &[&str]) -> Answer {
        let mut command = vstack();
        command.arg("emulate").args(arguments).arg("--json");
        command.env(
            "VSTACK_EMULATOR_URL",
            self.ready["control_url"].as_str().expect("a URL"),
        );
        finish(command)
    }

    /// The body of a chunk, through the first path.
    fn get(&self) -> Vec<u8> {
        let url = self.ready["paths"][0]["url"].as_str().expect("a URL");
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
        stream
            .write_all(b"GET /chunk/a HTTP/1.1\r\n\r\n")
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it ends");
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        answer.split_off(end + 4)
    }
}

#[test]
fn paths_obey_their_script_and_the_command_line() {
    let emulate = Emulate::start(&format!(
        r#"
        seed = 3
        [[path]]
        name = "node-1"
        node = "http://{}"
        [[event]]
        at_ms = 300
        path = "node-1"
        faults = [{{ kind = "truncate", at_share = 0.5 }}]
        "#,
        node()
    ));
    let event = emulate.lines.next(WITHIN).expect("the script's event is told");
    assert_eq!((&event["at_ms"], &event["path"]), (&300.into(), &"node-1".into()));
    assert_eq!(emulate.get(), BODY[..5]);

    let cleared = emulate.order(&["clear", "node-1"]).succeeded();
    assert_eq!(cleared["faults"], Value::Array(Vec::new()));
    assert_eq!(emulate.get(), BODY);

    let faults = r#"[{"kind":"truncate","at_share":0.1}]"#;
    let profile = r#"{"down_mbps":8.0}"#;
    let set = emulate.order(&["set", "node-1", "--faults", faults, "--profile", profile]);
    assert_eq!(set.succeeded()["profile"]["down_mbps"], 8.0);
    assert_eq!(emulate.get(), BODY[..1]);
    let listed = emulate.order(&["list"]).succeeded();
    assert_eq!(listed[0]["faults"][0]["kind"], "truncate");
}

#[test]
fn orders_that_make_no_sense_are_refused_with_their_code() {
    let emulate = Emulate::start(&format!("[[path]]\nname = \"a\"\nnode = \"{}\"", node()));
    let unknown = emulate.order(&["set", "b", "--faults", "[]"]);
    assert_eq!(unknown.failed(1)["code"], "not_found");
    let senseless = emulate.order(&["set", "a", "--faults", r#"[{"kind":"corrupt","chance":7}]"#]);
    assert_eq!(senseless.failed(1)["code"], "invalid_field");
    assert_eq!(
        emulate.order(&["set", "a", "--faults", "[{}]"]).failed(2)["code"],
        "bad_request"
    );
    assert_eq!(emulate.get(), BODY);
}

#[test]
fn a_file_with_mistakes_is_refused_with_all_of_them() {
    let (_folder, file) = written(
        "[[path]]\nname = \"A\"\nnode = \"127.0.0.1:1\"\nprofile = { down_mbps = 0.0 }\n[[event]]\nat_ms = 1\npath = \"c\"",
    );
    let mut command = vstack();
    command.args(["emulate", "--json", "--config", text(&file)]);
    let refused = finish(command);
    let detail = refused.failed(2)["detail"]
        .as_str()
        .expect("a sentence")
        .to_owned();
    for field in ["path[0].name", "path[0].profile.down_mbps", "event[0].path"] {
        assert!(detail.contains(field), "{detail}");
    }
}
