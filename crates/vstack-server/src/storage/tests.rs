//! A node on a real socket: what the wire contract promises, and every line of bad input that concerns chunks.

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

#[tokio::test]
async fn a_chunk_goes_in_and_comes_out() {
    let node = TestNode::start().await;
    let (path, data) = (format!("/chunk/{}", chunk(0)), bytes_of(1_500_000));
    let stored = node.put(&path, data.clone()).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    let etag = format!("\"{}\"", Sha256Digest::of(&data));
    assert_eq!(
        (header(&stored, "etag"), header(&stored, "location")),
        (etag.clone(), path.clone())
    );
    let answer: PutAnswer = stored.json().await.unwrap();
    assert_eq!((answer.status, answer.receipt), (PutStatus::Stored, None));
    assert_eq!(answer.leaf_root, ChunkDigest::of(&data).leaf_root);

    let got = node.get(&path).await;
    assert_eq!(
        (got.status(), header(&got, "etag")),
        (StatusCode::OK, etag.clone())
    );
    assert_eq!(header(&got, "content-length"), "1500000");
    assert_eq!(got.bytes().await.unwrap(), data);

    let head = node.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (head.status(), header(&head, "etag")),
        (StatusCode::OK, etag.clone())
    );
    assert_eq!(header(&head, "content-length"), "1500000");
    let known = node
        .request(Method::GET, &path)
        .header("if-none-match", &etag)
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn the_same_bytes_again_are_200_and_others_409_with_the_old_ones_intact() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    assert_eq!(node.put(&path, "one").await.status(), StatusCode::CREATED);
    let again = node.put(&path, "one").await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(
        again.json::<PutAnswer>().await.unwrap().status,
        PutStatus::AlreadyStored
    );
    check_problem(node.put(&path, "two").await, ErrorCode::Conflict).await;
    assert_eq!(node.get(&path).await.text().await.unwrap(), "one");
}

#[tokio::test]
async fn malformed_ids_are_400_and_unknown_ones_404() {
    let node = TestNode::start().await;
    let video = Uuid::from_u128(0x3b24_1101);
    let upper = "3B241101-E2BB-4255-8CAF-4136C566A962-init";
    let long = format!("{video}-chunk-{}", "1".repeat(2000));
    for id in [
        "x",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f",
        "a/b",
        "%00",
        upper,
        &long,
        &format!("{video}-chunk-1"),
    ] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = node
                .request(method, &format!("/chunk/{id}"))
                .body("x")
                .send()
                .await
                .unwrap();
            check_problem(answer, ErrorCode::BadChunkId).await;
        }
    }
    let dots = node
        .raw("GET /chunk/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        dots.starts_with("HTTP/1.1 400") && dots.contains("bad_chunk_id"),
        "{dots}"
    );
    let path = format!("/chunk/{}", chunk(9));
    check_problem(node.get(&path).await, ErrorCode::ChunkNotFound).await;
    check_problem(node.delete(&path).await, ErrorCode::ChunkNotFound).await;
    check_problem(
        node.get(&format!("{path}/leaves")).await,
        ErrorCode::ChunkNotFound,
    )
    .await;
    check_problem(node.get(&format!("{path}?ballot=x")).await, ErrorCode::BadRequest).await;
    assert_eq!(
        node.request(Method::HEAD, &path).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn bodies_that_cannot_be_chunks_are_refused() {
    let node = TestNode::start().await;
    let id = chunk(0);
    let head = |length: &str| {
        format!("PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{length}\r\n")
            .into_bytes()
    };
    let no_length = node.raw(head("")).await;
    assert!(
        no_length.starts_with("HTTP/1.1 411") && no_length.contains("length_required"),
        "{no_length}"
    );
    let empty = node.raw(head("content-length: 0\r\n")).await;
    assert!(
        empty.starts_with("HTTP/1.1 400") && empty.contains("empty_chunk"),
        "{empty}"
    );
    let empty = [&head("transfer-encoding: chunked\r\n")[..], b"0\r\n\r\n"].concat();
    let empty = node.raw(empty).await;
    assert!(
        empty.starts_with("HTTP/1.1 400") && empty.contains("empty_chunk"),
        "{empty}"
    );
    // Answered from the header alone: not a byte of the body is sent.
    let too_large = node.raw(head("content-length: 67108865\r\n")).await;
    assert!(
        too_large.starts_with("HTTP/1.1 413") && too_large.contains("67108864 bytes"),
        "{too_large}"
    );
    let bad_size = [
        &head("transfer-encoding: chunked\r\n")[..],
        b"FFFFFFFFFFFFFFFFF\r\nx",
    ]
    .concat();
    let bad_size = node.raw(bad_size).await;
    assert!(
        bad_size.is_empty() || bad_size.starts_with("HTTP/1.1 400"),
        "{bad_size}"
    );
    check_problem(node.get(&format!("/chunk/{id}")).await, ErrorCode::ChunkNotFound).await;
}

#[tokio::test]
async fn a_chunked_body_is_taken_and_stopped_at_the_limit() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    let pieces = |count: usize| {
        let piece = Ok::<_, std::io::Error>(bytes::Bytes::from(bytes_of(1 << 20)));
        reqwest::Body::wrap_stream(futures::stream::iter((0..count).map(move |_| match &piece {
            Ok(bytes) => Ok(bytes.clone()),
            Err(_) => Err(std::io::Error::other("no piece")),
        })))
    };
    assert_eq!(node.put(&path, pieces(3)).await.status(), StatusCode::CREATED);
    assert_eq!(node.get(&path).await.bytes().await.unwrap().len(), 3 << 20);
    // The connection may be cut before the client reads the 413; either way nothing is stored.
    let other = format!("/chunk/{}", chunk(1));
    if let Ok(answer) = node.request(Method::PUT, &other).body(pieces(65)).send().await {
        check_problem(answer, ErrorCode::TooLarge).await;
    }
    check_problem(node.get(&other).await, ErrorCode::ChunkNotFound).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let node = TestNode::start().await;
    let id = chunk(0);
    let cut = format!("PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nonly this");
    let answer = node
        .raw_then(cut, |socket| socket.shutdown(Shutdown::Write))
        .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    check_problem(node.get(&format!("/chunk/{id}")).await, ErrorCode::ChunkNotFound).await;
    // What comes after the declared length is another request, and none that is understood.
    let long = format!(
        "PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nfour and more\r\n\r\n"
    );
    let answer = node.raw(long).await;
    assert!(
        answer.starts_with("HTTP/1.1 201") && answer.contains("HTTP/1.1 400"),
        "{answer}"
    );
    assert_eq!(
        node.get(&format!("/chunk/{id}")).await.text().await.unwrap(),
        "four"
    );
}

#[tokio::test]
async fn a_content_digest_is_checked_before_anything_is_stored() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    let digest = |bytes: &[u8]| format!("sha-256=:{}:", STANDARD.encode(Sha256Digest::of(bytes).0));
    let put = |value: String| {
        node.request(Method::PUT, &path)
            .header("content-digest", value)
            .body("right")
            .send()
    };
    check_problem(put(digest(b"wrong")).await.unwrap(), ErrorCode::HashMismatch).await;
    check_problem(
        put("sha-256=:x:".to_owned()).await.unwrap(),
        ErrorCode::BadRequest,
    )
    .await;
    check_problem(node.get(&path).await, ErrorCode::ChunkNotFound).await;
    assert_eq!(put(digest(b"right")).await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn ranges_answer_as_rfc_9110_says() {
    let node = TestNode::start().await;
    let (path, data) = (format!("/chunk/{}", chunk(0)), bytes_of(1_200_000));
    node.put(&path, data.clone()).await;
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=-1", 1_199_999..1_200_000),
        ("bytes=5-", 5..1_200_000),
        ("bytes=65535-65536", 65_535..65_537),
        ("bytes=500000-1100000", 500_000..1_100_001),
        ("bytes=7-99999999999", 7..1_200_000),
    ] {
        let answer = node.range(&path, range).await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let expected = format!("bytes {}-{}/1200000", part.start, part.end - 1);
        assert_eq!(header(&answer, "content-range"), expected);
        assert!(answer.bytes().await.unwrap() == data[part], "{range}");
    }
    for range in ["bytes=5-2", "abc", "items=0-1"] {
        let answer = node.range(&path, range).await;
        assert_eq!(
            (answer.status(), answer.bytes().await.unwrap().len()),
            (StatusCode::OK, data.len()),
            "{range}"
        );
    }
    for range in [
        "bytes=999999999999-",
        "bytes=18446744073709551615-18446744073709551616",
    ] {
        let answer = node.range(&path, range).await;
        assert_eq!(header(&answer, "content-range"), "bytes */1200000");
        check_problem(answer, ErrorCode::RangeNotSatisfiable).await;
    }
    let many = format!("bytes={}", vec!["0-0"; 300].join(","));
    check_problem(node.range(&path, &many).await, ErrorCode::SingleRangeOnly).await;
    let old = node
        .request(Method::GET, &path)
        .header("range", "bytes=0-0")
        .header("if-range", "\"old\"");
    assert_eq!(old.send().await.unwrap().status(), StatusCode::OK);
    let two = node
        .request(Method::GET, &path)
        .header("range", "bytes=0-0")
        .header("range", "bytes=1-1");
    check_problem(two.send().await.unwrap(), ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn a_plain_delete_is_lazy_final_and_reaches_ballot_0_alone() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    node.put(&path, "plain").await;
    assert_eq!(node.delete(&path).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(node.delete(&path).await.status(), StatusCode::NO_CONTENT);
    check_problem(node.get(&path).await, ErrorCode::ChunkNotFound).await;
    check_problem(node.put(&path, "plain").await, ErrorCode::ChunkDeleted).await;
    let grant = node.grant(1, 9);
    node.put_granted(&grant, b"committed".to_vec()).await;
    let path = format!("/chunk/{}", chunk(1));
    check_problem(node.delete(&path).await, ErrorCode::Committed).await;
    check_problem(
        node.delete(&format!("{path}?ballot=9")).await,
        ErrorCode::Committed,
    )
    .await;
    assert_eq!(node.get(&path).await.text().await.unwrap(), "committed");
}

#[tokio::test]
async fn a_granted_put_gives_a_receipt_that_the_catalogue_can_check() {
    let node = TestNode::start().await;
    let grant = node.grant(0, (3 << 40) + 1);
    let answer = node.put_granted(&grant, bytes_of(1000)).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(
        header(&answer, "location"),
        format!("/chunk/{}?ballot={}", chunk(0), grant.ballot)
    );
    let receipt = answer
        .json::<PutAnswer>()
        .await
        .unwrap()
        .receipt
        .expect("a receipt");
    assert!(receipt.verifies(&key().receipt_key(node.node_id())));
    assert_eq!(
        (receipt.ballot, receipt.digest),
        (grant.ballot, ChunkDigest::of(&bytes_of(1000)))
    );
    let again = node.put_granted(&grant, bytes_of(1000)).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.json::<PutAnswer>().await.unwrap().receipt, Some(receipt));
    check_problem(node.put_granted(&grant, bytes_of(999)).await, ErrorCode::Conflict).await;
}

#[tokio::test]
async fn only_the_catalogues_own_grants_and_orders_count() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}?ballot=9", chunk(0));
    check_problem(node.put(&path, "x").await, ErrorCode::Forbidden).await;
    let forged = Grant {
        min_ack: 1,
        ..node.grant(0, 9)
    };
    check_problem(
        node.put_granted(&forged, b"x".to_vec()).await,
        ErrorCode::BadSignature,
    )
    .await;
    let garbage = node
        .request(Method::PUT, &path)
        .header("x-vstack-grant", "garbage")
        .body("x");
    check_problem(garbage.send().await.unwrap(), ErrorCode::BadSignature).await;
    let other_chunk = node
        .request(Method::PUT, &path)
        .header("x-vstack-grant", node.grant(1, 9).to_token());
    check_problem(other_chunk.body("x").send().await.unwrap(), ErrorCode::Forbidden).await;
    let nodes = vec![NodeId(Uuid::from_u128(99))];
    let ballots = (Ballot::from_number(9), Ballot::PLAIN);
    let elsewhere = Grant::signed(&key().grant_key(), chunk(0), ballots, nodes, 2, UnixMillis(0));
    check_problem(
        node.put_granted(&elsewhere, b"x".to_vec()).await,
        ErrorCode::Forbidden,
    )
    .await;
    let mut order = DeleteOrder::signed(
        &key().grant_key(),
        chunk(0),
        Ballot::from_number(9),
        node.node_id(),
    );
    order.ballot = Ballot::from_number(8);
    check_problem(node.delete_ordered(&order).await, ErrorCode::BadSignature).await;
}

#[tokio::test]
async fn an_overtaken_ballot_is_fenced() {
    let node = TestNode::start().await;
    assert_eq!(
        node.put_granted(&node.grant(0, 9), b"new".to_vec())
            .await
            .status(),
        StatusCode::CREATED
    );
    check_problem(
        node.put_granted(&node.grant(0, 5), b"old".to_vec()).await,
        ErrorCode::Fenced,
    )
    .await;
    // After a restart the node has forgotten its promise, but not what it holds.
    let node = TestNode::start_in(node.stop().await, |_| {}).await;
    check_problem(
        node.put_granted(&node.grant(0, 5), b"old".to_vec()).await,
        ErrorCode::Fenced,
    )
    .await;
    assert_eq!(
        node.get(&format!("/chunk/{}", chunk(0)))
            .await
            .text()
            .await
            .unwrap(),
        "new"
    );
}

#[tokio::test]
async fn a_plain_object_is_adopted_under_a_granted_ballot() {
    let node = TestNode::start().await;
    let data = bytes_of(100_000);
    node.put(&format!("/chunk/{}", chunk(0)), data.clone()).await;
    let wrong = Some(Sha256Digest::of(b"wrong"));
    check_problem(
        node.adopt(node.grant(0, 9), 0, wrong).await,
        ErrorCode::HashMismatch,
    )
    .await;
    let right = Some(Sha256Digest::of(&data));
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let adopted = node.adopt(node.grant(0, 9), 0, right).await;
        assert_eq!(adopted.status(), status);
        let receipt = adopted
            .json::<PutAnswer>()
            .await
            .unwrap()
            .receipt
            .expect("a receipt");
        assert_eq!(
            (receipt.ballot.number(), receipt.digest),
            (9, ChunkDigest::of(&data))
        );
    }
    node.delete(&format!("/chunk/{}", chunk(0))).await;
    assert_eq!(
        node.get(&format!("/chunk/{}?ballot=9", chunk(0)))
            .await
            .bytes()
            .await
            .unwrap(),
        data
    );
    check_problem(
        node.adopt(node.grant(5, 9), 0, None).await,
        ErrorCode::ChunkNotFound,
    )
    .await;
    let bad_json = node.request(Method::POST, &format!("/chunk/{}/adopt", chunk(0)));
    let bad_json = bad_json
        .header("content-type", "application/json")
        .body("{")
        .send()
        .await
        .unwrap();
    check_problem(bad_json, ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn an_order_deletes_one_ballot_and_a_late_put_cannot_bring_it_back() {
    let node = TestNode::start().await;
    let order = |ballot| {
        DeleteOrder::signed(
            &key().grant_key(),
            chunk(0),
            Ballot::from_number(ballot),
            node.node_id(),
        )
    };
    node.put_granted(&node.grant(0, 5), b"five".to_vec()).await;
    node.put_granted(&node.grant(0, 9), b"nine".to_vec()).await;
    assert_eq!(
        node.delete_ordered(&order(9)).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        node.delete_ordered(&order(9)).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        node.delete_ordered(&order(7)).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        node.get(&format!("/chunk/{}", chunk(0)))
            .await
            .text()
            .await
            .unwrap(),
        "five"
    );
    check_problem(
        node.put_granted(&node.grant(0, 9), b"nine".to_vec()).await,
        ErrorCode::Fenced,
    )
    .await;
    let elsewhere = DeleteOrder::signed(
        &key().grant_key(),
        chunk(0),
        Ballot::from_number(5),
        NodeId(Uuid::nil()),
    );
    check_problem(node.delete_ordered(&elsewhere).await, ErrorCode::Forbidden).await;
}

#[tokio::test]
async fn leaves_are_served_for_any_ballot() {
    let node = TestNode::start().await;
    let data = bytes_of(200_000);
    node.put_granted(&node.grant(0, 9), data.clone()).await;
    for query in ["", "?ballot=9"] {
        let answer: LeavesAnswer = node
            .get(&format!("/chunk/{}/leaves{query}", chunk(0)))
            .await
            .json()
            .await
            .unwrap();
        let expected: Vec<_> = data.chunks(LEAF_BYTES).map(leaf_hash).collect();
        assert_eq!((answer.leaf_bytes, answer.leaves), (LEAF_BYTES as u64, expected));
    }
}

/// Turns one byte of the stored bytes over.
fn rot(node: &TestNode, data: &[u8], at: usize) {
    let mut file = std::fs::read(node.superblock()).unwrap();
    let start = file
        .windows(64)
        .position(|window| window == &data[..64])
        .expect("the chunk is in the file");
    file[start + at] ^= 0x10;
    std::fs::write(node.superblock(), file).unwrap();
}

#[tokio::test]
async fn a_rotten_chunk_is_500_and_neither_200_nor_404() {
    let node = TestNode::start().await;
    let data = bytes_of(300_000);
    for seq in 0..2 {
        let body = [vec![u8::try_from(seq).unwrap()], data.clone()].concat();
        node.put(&format!("/chunk/{}", chunk(seq)), body).await;
    }
    rot(&node, &[vec![1], data.clone()].concat(), 1000);
    let node = TestNode::start_in(node.stop().await, |_| {}).await;
    for _ in 0..2 {
        check_problem(
            node.get(&format!("/chunk/{}", chunk(1))).await,
            ErrorCode::ChunkCorrupt,
        )
        .await;
        check_problem(
            node.range(&format!("/chunk/{}", chunk(1)), "bytes=0-9").await,
            ErrorCode::ChunkCorrupt,
        )
        .await;
    }
    assert_eq!(
        node.get(&format!("/chunk/{}", chunk(0))).await.status(),
        StatusCode::OK
    );
    let health: Value = node.get("/health").await.json().await.unwrap();
    assert_eq!(
        (&health["corrupt_count"], &health["chunk_count"]),
        (&Value::from(1), &Value::from(2))
    );
    // The same bytes mend it; others do not get in that way.
    check_problem(
        node.put(&format!("/chunk/{}", chunk(1)), "other").await,
        ErrorCode::Conflict,
    )
    .await;
    let body = [vec![1], data].concat();
    assert_eq!(
        node.put(&format!("/chunk/{}", chunk(1)), body.clone())
            .await
            .status(),
        StatusCode::CREATED
    );
    assert_eq!(
        node.get(&format!("/chunk/{}", chunk(1)))
            .await
            .bytes()
            .await
            .unwrap(),
        body
    );
}

#[tokio::test]
async fn rot_that_shows_in_the_middle_of_an_answer_cuts_the_connection() {
    let node = TestNode::start().await;
    let (path, data) = (format!("/chunk/{}", chunk(0)), bytes_of(3_000_000));
    node.put(&path, data.clone()).await;
    rot(&node, &data, 2_500_000);
    let answer = node.get(&path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.bytes().await.is_err(), "a damaged chunk arrived complete");
    check_problem(node.get(&path).await, ErrorCode::ChunkCorrupt).await;
}

#[tokio::test]
async fn a_full_node_refuses_writes_before_the_body_and_goes_on_reading_and_deleting() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    node.put(&path, "before").await;
    let full = |config: &mut StorageConfig| config.reserve_bytes = Some(u64::MAX / 2);
    let node = TestNode::start_in(node.stop().await, full).await;
    check_problem(
        node.put(&format!("/chunk/{}", chunk(1)), "after").await,
        ErrorCode::NodeFull,
    )
    .await;
    assert_eq!(node.put(&path, "before").await.status(), StatusCode::OK);
    assert_eq!(node.get(&path).await.text().await.unwrap(), "before");
    assert_eq!(node.delete(&path).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn ping_and_health_say_who_and_how_full() {
    let node = TestNode::start().await;
    node.put(&format!("/chunk/{}", chunk(0)), bytes_of(5000)).await;
    let ping = node.request(Method::HEAD, "/ping").send().await.unwrap();
    assert_eq!(header(&ping, "x-node-id"), node.node_id().to_string());
    assert_eq!(header(&ping, "x-requests-in-flight"), "0");
    let used: f64 = header(&ping, "x-disk-usage-percent").parse().unwrap();
    assert!((0.0..=100.0).contains(&used));
    let deadline = Instant::now() + Duration::from_secs(20);
    // The rate is that of the last second, which a busy machine can let pass between the two requests.
    while header(
        &node.request(Method::HEAD, "/ping").send().await.unwrap(),
        "x-egress-bps",
    ) == "0"
    {
        assert!(Instant::now() < deadline, "reading never showed");
        node.get(&format!("/chunk/{}", chunk(0)))
            .await
            .bytes()
            .await
            .unwrap();
    }
    let health = StorageClient(Endpoint::new(&node.running.url))
        .health()
        .await
        .unwrap();
    assert_eq!(
        (health.chunk_count, health.bytes_stored, health.boot_epoch),
        (1, 5000, 1)
    );
    assert!(!health.read_only);
}

#[tokio::test]
async fn a_foreign_host_name_is_not_answered() {
    let node = TestNode::start().await;
    let answer = node
        .raw("GET /ping HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 421") && !answer.contains(&node.node_id().to_string()),
        "{answer}"
    );
}

#[tokio::test]
async fn a_second_node_on_the_folder_is_refused_with_the_pid_and_a_taken_port_with_its_holder() {
    let node = TestNode::start().await;
    let pid = std::process::id().to_string();
    let locked = start(config(node.folder.path().join("node"))).await.unwrap_err();
    assert!(
        matches!(&locked, StartError::Locked { pid: holder, .. } if *holder == pid),
        "{locked}"
    );
    let other = tempfile::tempdir().unwrap();
    let taken = StorageConfig {
        listen: node.address().parse().unwrap(),
        ..config(other.path().join("node"))
    };
    let refused = start(taken).await.unwrap_err().to_string();
    assert!(refused.contains(&pid), "{refused}");
}

#[tokio::test]
async fn the_first_heartbeat_registers_the_node_with_its_own_signature() {
    let (sender, mut heartbeats) = tokio::sync::mpsc::unbounded_channel();
    let catalogue = axum::Router::new().route(
        "/nodes/{node_id}/heartbeat",
        axum::routing::post(
            move |axum::extract::Path(node): axum::extract::Path<NodeId>,
                  axum::Json(beat): axum::Json<Heartbeat>| {
                drop(sender.send((node, beat)));
                async { axum::Json(serde_json::json!({})) }
            },
        ),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metadata_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, catalogue).await });
    let node = TestNode::start_with(|config| config.metadata_url = Some(metadata_url)).await;
    for chunk_count in 0..2 {
        let (node_id, beat) = heartbeats.recv().await.expect("a heartbeat");
        assert_eq!((node_id, &beat.url), (node.node_id(), &node.running.url));
        assert!(beat.verifies(node_id, &key().receipt_key(node_id)));
        if chunk_count == 0 {
            node.put_granted(&node.grant(0, (4 << 40) + 1), b"x".to_vec())
                .await;
        } else {
            assert_eq!((beat.chunk_count, beat.highest_generation), (1, 4));
        }
    }
}
