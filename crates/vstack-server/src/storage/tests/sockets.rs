//! Bytes on a raw socket: smuggled requests, slow ones, silent ones, too many of them, and an orderly end.

use std::net::TcpStream;

use super::*;
use crate::connection::ConnectionLimits;

/// Limits that a test can wait for.
fn impatient() -> ConnectionLimits {
    ConnectionLimits {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        body: Duration::from_millis(300),
        per_address: 1024,
    }
}

async fn impatient_node() -> TestNode {
    TestNode::start_with(|config| config.limits = impatient()).await
}

impl TestNode {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).expect("the node listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        socket
    }
}

/// Waits until the other side closes; how long that took.
async fn closed(mut socket: TcpStream) -> (Duration, String) {
    let wait = move || {
        let (started, mut answer) = (Instant::now(), Vec::new());
        // A reset is a close, too.
        let ended = socket.read_to_end(&mut answer);
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "the node keeps the connection");
        (started.elapsed(), String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::task::spawn_blocking(wait).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_is_refused_and_its_connection_closed() {
    let node = TestNode::start().await;
    let id = chunk(0);
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        // Read by its length the body ends before the GET; read as chunks the GET is part of it.
        let text = format!(
            "PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\n\
             4\r\nfour\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n"
        );
        let answer = node.raw(text).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    check_problem(node.get(&format!("/chunk/{id}")).await, ErrorCode::ChunkNotFound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_http_are_400_and_closed() {
    let node = TestNode::start().await;
    let id = chunk(0);
    let put = |headers: &str| format!("PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    for text in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /ping HTTP/9.9\r\n\r\n".to_owned(),
        put("content-length: 4\r\ncontent-length: 5\r\n") + "four",
        put("content-length: -1\r\n"),
        put("content-length: 18446744073709551616\r\n"),
        put("transfer-encoding: gzip\r\n"),
        put("transfer-encoding: chunked\r\n") + "FFFFFFFFFFFFFFFFF\r\nx",
        put("transfer-encoding: chunked\r\n") + "4 four\r\n0\r\n\r\n",
        put("bad name: x\r\ncontent-length: 4\r\n") + "four",
    ] {
        let answer = node.raw(text.clone()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400"),
            "{text:?} was answered {answer:?}"
        );
    }
    let long = node
        .raw(put(&format!("x-long: {}\r\n", "a".repeat(200_000))))
        .await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    check_problem(node.get(&format!("/chunk/{id}")).await, ErrorCode::ChunkNotFound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let node = TestNode::start().await;
    // More than both sides' socket buffers hold, so that a reset would end the sending.
    let body = vec![0; 16 << 20];
    let head = format!(
        "PUT /chunk/NO-ID HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = node.connect();
    let sent = move || {
        socket.write_all(head.as_bytes())?;
        socket.write_all(&body)?;
        Ok::<_, std::io::Error>(socket)
    };
    let socket = tokio::task::spawn_blocking(sent).await.expect("no panic");
    let (_, answer) = closed(socket.expect("the node takes the body away")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_announces_the_close() {
    let node = TestNode::start().await;
    let id = chunk(0);
    let head = format!(
        "PUT /chunk/NO-ID HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        4 << 20
    );
    let mut socket = node.connect();
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let length = socket.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 400"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // A body that was read leaves the connection as it was.
    let stored = node.put(&format!("/chunk/{id}"), "four").await;
    assert_eq!(stored.status(), 201);
    assert_eq!(stored.headers().get("connection"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_body_that_never_comes_is_given_up() {
    let node = impatient_node().await;
    let mut socket = node.connect();
    let head = format!(
        "PUT /chunk/{} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
        chunk(0)
    );
    socket.write_all(head.as_bytes()).unwrap();
    let (_, answer) = closed(socket).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue"), "{answer}");
    assert!(
        answer.contains("HTTP/1.1 400") && answer.contains("nothing of the body"),
        "{answer}"
    );
    check_problem(
        node.get(&format!("/chunk/{}", chunk(0))).await,
        ErrorCode::ChunkNotFound,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_given_up_and_leaves_nothing() {
    let node = impatient_node().await;
    let mut socket = node.connect();
    let path = format!("/chunk/{}", chunk(0));
    let head = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut trickling = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        while trickling.write_all(b"a").is_ok() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    let (_, answer) = closed(socket).await;
    // Whoever still sends while the answer comes may miss it: the connection is reset.
    assert!(answer.is_empty() || answer.contains("too slowly"), "{answer}");
    check_problem(node.get(&path).await, ErrorCode::ChunkNotFound).await;
    assert_eq!(node.counted("vstack_storage_requests_in_flight").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_from_the_head_alone_comes_without_100_continue() {
    let node = TestNode::start().await;
    let head = format!(
        "PUT /chunk/{} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 67108865\r\nexpect: 100-continue\r\n\r\n",
        chunk(0)
    );
    let answer = node.raw(head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_and_an_idle_connection_are_closed_and_a_busy_one_is_not() {
    let node = impatient_node().await;
    let idle = node.connect();
    let mut kept = node.connect();
    // A first request, so that its head is over and the second one's limit begins anew.
    kept.write_all(b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut begin = [0; 12];
    kept.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let mut slow = node.connect();
    slow.write_all(b"GET /ping HTTP/1.1\r\nx-drip: ").unwrap();
    let mut dripping = slow.try_clone().unwrap();
    std::thread::spawn(move || {
        // A byte now and then, until the node has enough of it.
        while dripping.write_all(b"a").is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let (slow, idle, kept) = tokio::join!(closed(slow), closed(idle), closed(kept));
    assert!(slow.1.is_empty(), "{}", slow.1);
    assert!(slow.0 >= impatient().head / 2, "after {:?}", slow.0);
    for (took, _) in [idle, kept] {
        assert!(took >= impatient().idle / 2, "after {took:?}");
        // Not at the second alarm only.
        assert!(took < impatient().idle * 15 / 8, "after {took:?}");
    }
    assert_eq!(
        node.counted("vstack_http_connections_closed_total{reason=\"slow_head\"}")
            .await,
        1
    );
    assert!(
        node.counted("vstack_http_connections_closed_total{reason=\"idle\"}")
            .await
            >= 2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_given_up() {
    let node = impatient_node().await;
    let path = format!("/chunk/{}", chunk(0));
    node.put(&path, bytes_of(60 << 20)).await;
    let mut stuck = node.connect();
    stuck
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
        .unwrap();
    let line = "vstack_http_connections_closed_total{reason=\"stuck_reader\"}";
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.counted(line).await == 0 {
        assert!(Instant::now() < deadline, "the node waits for ever");
        tokio::task::yield_now().await;
    }
    assert_eq!(node.counted("vstack_storage_requests_in_flight").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_only_so_many_connections() {
    let node = TestNode::start_with(|config| config.limits.per_address = 3).await;
    let mut kept: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut socket = node.connect();
        socket
            .write_all(b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .unwrap();
        let mut begin = [0; 12];
        socket.read_exact(&mut begin).unwrap();
        kept.push(socket);
    }
    let (_, answer) = closed(node.connect()).await;
    assert!(answer.is_empty(), "{answer}");
    drop(kept);
    let deadline = Instant::now() + Duration::from_secs(20);
    // The node sees the end of the others in its own time.
    while node.request(Method::GET, "/ping").send().await.is_err() {
        assert!(Instant::now() < deadline, "the cap is never given back");
        tokio::task::yield_now().await;
    }
    assert!(
        node.counted("vstack_http_connections_closed_total{reason=\"address_cap\"}")
            .await
            >= 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_an_open_request_end_and_closes_what_is_idle() {
    let node = TestNode::start().await;
    let idle = node.connect();
    let mut open = node.connect();
    let id = chunk(0);
    open.write_all(
        format!("PUT /chunk/{id} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8\r\n\r\nhalf").as_bytes(),
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.counted("vstack_storage_requests_in_flight").await == 0 {
        assert!(Instant::now() < deadline, "the request never began");
    }
    let address = node.address().to_owned();
    let stopping = tokio::spawn(node.stop());
    assert!(closed(idle).await.1.is_empty());
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "a stopping node takes connections");
        tokio::task::yield_now().await;
    }
    open.write_all(b"half").unwrap();
    let (_, answer) = closed(open).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let folder = stopping.await.unwrap();
    let again = TestNode::start_in(folder, |_| {}).await;
    assert_eq!(
        again.get(&format!("/chunk/{id}")).await.text().await.unwrap(),
        "halfhalf"
    );
}

const SMALL: usize = 65_000;

/// One answer of [`SMALL`] bytes, read to its end.
fn read_answer(socket: &mut TcpStream) {
    let (mut answer, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + SMALL) {
            return;
        }
        match socket.read(&mut buffer).expect("it answers") {
            0 => panic!("the answer broke off"),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The 99th percentile of many GETs, in ms.
fn p99_ms(address: &str, path: &str) -> f64 {
    let mut socket = TcpStream::connect(address).expect("the node listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut times: Vec<f64> = (0..400)
        .map(|_| {
            let started = Instant::now();
            socket
                .write_all(request.as_bytes())
                .expect("it takes the request");
            read_answer(&mut socket);
            started.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_do_not_slow_the_others() {
    let node = TestNode::start().await;
    let path = format!("/chunk/{}", chunk(0));
    node.put(&path, bytes_of(SMALL)).await;
    let address = node.address().to_owned();
    let mut slow: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut socket = node.connect();
            socket.write_all(b"GET /ping HTTP/1.1\r\nx-drip: ").unwrap();
            socket
        })
        .collect();
    let measure =
        |address: String, path: String| tokio::task::spawn_blocking(move || p99_ms(&address, &path));
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let with = measure(address.clone(), path.clone()).await.unwrap();
        for socket in &mut slow {
            socket.write_all(b"a").unwrap();
        }
        let still = measure(address.clone(), path.clone()).await.unwrap();
        ratios.push((with, still));
    }
    drop(slow);
    let alone = measure(address, path).await.unwrap();
    // The best of several: a busy machine spoils single rounds, slow connections would spoil them all. 1 ms of grace,
    // since a scheduler's tick is more than these requests take.
    let best = ratios
        .iter()
        .map(|(with, still)| with.min(*still))
        .fold(f64::INFINITY, f64::min);
    assert!(
        best <= 2.0 * alone + 1.0,
        "p99 {best} ms beside slow connections, {alone} ms alone"
    );
}
