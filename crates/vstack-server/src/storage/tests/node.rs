//! The node itself: rot, room, health, its folder and its heartbeat.

use super::*;

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
async fn the_scrub_finds_rot_that_nobody_reads_and_health_tells() {
    let node = TestNode::start().await;
    let data = bytes_of(300_000);
    for seq in 0..2 {
        let body = [vec![u8::try_from(seq).unwrap()], data.clone()].concat();
        node.put(&format!("/chunk/{}", chunk(seq)), body).await;
    }
    rot(&node, &[vec![1], data].concat(), 1000);
    let scrubbing = |config: &mut StorageConfig| config.upkeep = true;
    let node = TestNode::start_in(node.stop().await, scrubbing).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let health = loop {
        let health: Value = node.get("/health").await.json().await.unwrap();
        if health["scrub"]["last_ended_ms"].is_u64() {
            break health;
        }
        assert!(Instant::now() < deadline, "no round ended: {health}");
        tokio::task::yield_now().await;
    };
    let (scrub, finding) = (&health["scrub"], &health["scrub"]["findings"][0]);
    assert_eq!(finding["chunk_id"], Value::from(chunk(1).to_string()), "{health}");
    assert_eq!(
        (
            &scrub["found_total"],
            &scrub["last_clean_ms"],
            &health["corrupt_count"]
        ),
        (&Value::from(1), &Value::Null, &Value::from(1))
    );
    assert_eq!(node.counted("vstack_storage_scrub_found_total").await, 1);
    assert_eq!(
        node.counted("vstack_storage_scrub_last_clean_timestamp_seconds")
            .await,
        0
    );
    let ended_ms = scrub["last_ended_ms"].as_u64().unwrap();
    let counted = node
        .counted("vstack_storage_scrub_last_ended_timestamp_seconds")
        .await;
    assert_eq!(counted, ended_ms / 1000);
    check_problem(
        node.get(&format!("/chunk/{}", chunk(1))).await,
        ErrorCode::ChunkCorrupt,
    )
    .await;
    // What was found is still known after a restart, without another round.
    let node = TestNode::start_in(node.stop().await, scrubbing).await;
    let health: Value = node.get("/health").await.json().await.unwrap();
    assert_eq!(health["corrupt_count"], Value::from(1), "{health}");
    assert_eq!(health["scrub"]["last_ended_ms"], scrub["last_ended_ms"]);
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
