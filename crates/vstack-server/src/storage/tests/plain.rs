//! Chunks without a ballot: PUT, GET, Range, DELETE, and what is no chunk.

use super::*;

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
