//! A node on a real socket: what the wire contract promises, and every line of bad input that concerns chunks.

mod egress;
mod granted;
mod node;
mod plain;
mod sockets;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;
use vstack_api::wire::{AdoptRequest, Heartbeat, LeavesAnswer, PutAnswer, PutStatus};
use vstack_api::{Endpoint, ErrorCode, Problem, StorageClient};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, LEAF_BYTES, Sha256Digest, leaf_hash};
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::paxos::{DeleteOrder, Grant};
use vstack_core::time::UnixMillis;

use super::{StorageConfig, start};
use crate::role::{Running, StartError};

struct TestNode {
    running: Running,
    client: Client,
    folder: TempDir,
}

fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[7; 32]).expect("32 bytes")
}

fn config(data: PathBuf) -> StorageConfig {
    let listen = "127.0.0.1:0".parse().expect("an address");
    StorageConfig {
        reserve_bytes: Some(0),
        superblock_bytes: Some(256 << 20),
        // The tests say when damage is found.
        upkeep: false,
        ..StorageConfig::new(listen, data, key())
    }
}

fn chunk(seq: u32) -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(0x3b24_1101)), seq)
}

fn bytes_of(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from(index * 31 % 251).expect("below 251"))
        .collect()
}

impl TestNode {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// What a counter of `/metrics` says, 0 while it is not there.
    async fn counted(&self, line: &str) -> u64 {
        let text = self.get("/metrics").await.text().await.expect("text");
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        value.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    async fn start_with(change: impl FnOnce(&mut StorageConfig)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), change).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut StorageConfig)) -> Self {
        let mut config = config(folder.path().join("node"));
        change(&mut config);
        let running = start_when_free(&config).await;
        Self {
            running,
            client: Client::new(),
            folder,
        }
    }

    /// Stops the node and hands its folder over.
    async fn stop(self) -> TempDir {
        self.running.stop().await;
        self.folder
    }

    fn node_id(&self) -> NodeId {
        self.running.node_id.expect("a storage node has an id")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.running.url))
    }

    async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.request(Method::PUT, path)
            .body(body)
            .send()
            .await
            .expect("an answer")
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    async fn range(&self, path: &str, range: &str) -> reqwest::Response {
        self.request(Method::GET, path)
            .header("range", range)
            .send()
            .await
            .expect("an answer")
    }

    async fn delete(&self, path: &str) -> reqwest::Response {
        self.request(Method::DELETE, path)
            .send()
            .await
            .expect("an answer")
    }

    fn grant(&self, seq: u32, ballot: u64) -> Grant {
        let ballots = (Ballot::from_number(ballot), Ballot::PLAIN);
        Grant::signed(
            &key().grant_key(),
            chunk(seq),
            ballots,
            vec![self.node_id()],
            2,
            UnixMillis(0),
        )
    }

    async fn put_granted(&self, grant: &Grant, body: Vec<u8>) -> reqwest::Response {
        let path = format!("/chunk/{}?ballot={}", grant.chunk_id, grant.ballot);
        let request = self
            .request(Method::PUT, &path)
            .header("x-vstack-grant", grant.to_token());
        request.body(body).send().await.expect("an answer")
    }

    async fn adopt(&self, grant: Grant, from: u64, sha256: Option<Sha256Digest>) -> reqwest::Response {
        let path = format!("/chunk/{}/adopt", grant.chunk_id);
        let body = AdoptRequest {
            grant,
            from_ballot: Ballot::from_number(from),
            sha256,
        };
        self.request(Method::POST, &path)
            .json(&body)
            .send()
            .await
            .expect("an answer")
    }

    async fn delete_ordered(&self, order: &DeleteOrder) -> reqwest::Response {
        let path = format!("/chunk/{}?ballot={}", order.chunk_id, order.ballot);
        let request = self
            .request(Method::DELETE, &path)
            .header("x-vstack-order", order.to_token());
        request.send().await.expect("an answer")
    }

    /// Sends `text` as it is and reads until the node closes the connection.
    async fn raw(&self, text: impl Into<Vec<u8>>) -> String {
        self.raw_then(text, |_| Ok(())).await
    }

    async fn raw_then(
        &self,
        text: impl Into<Vec<u8>>,
        then: impl FnOnce(&TcpStream) -> std::io::Result<()> + Send + 'static,
    ) -> String {
        let (address, text) = (self.address().to_owned(), text.into());
        let talk = move || {
            let mut socket = TcpStream::connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.write_all(&text)?;
            then(&socket)?;
            let mut answer = Vec::new();
            // A node that resets the connection has answered too.
            drop(socket.read_to_end(&mut answer));
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        tokio::task::spawn_blocking(talk)
            .await
            .expect("no panic")
            .expect("the node takes the request")
    }

    fn address(&self) -> &str {
        self.running.url.strip_prefix("http://").expect("an http address")
    }

    fn superblock(&self) -> PathBuf {
        self.folder.path().join("node/data/superblock_000000.dat")
    }
}

/// A folder is free a moment after the node that used it has stopped.
async fn start_when_free(config: &StorageConfig) -> Running {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match start(config.clone()).await {
            Ok(running) => return running,
            Err(StartError::Locked { .. }) if Instant::now() < deadline => tokio::task::yield_now().await,
            Err(error) => panic!("the node does not start: {error}"),
        }
    }
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response
        .headers()
        .get(name)
        .map_or_else(String::new, |value| value.to_str().expect("text").to_owned())
}

async fn check_problem(response: reqwest::Response, code: ErrorCode) {
    assert_eq!(response.status().as_u16(), code.status(), "{code}: {response:?}");
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let request_id = header(&response, "x-request-id");
    let problem: Problem = response.json().await.expect("a problem");
    assert_eq!(problem.code, code, "{}", problem.detail);
    assert_eq!(problem.request_id, request_id);
}
