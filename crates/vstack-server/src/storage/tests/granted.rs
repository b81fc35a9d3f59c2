//! Chunks under a ballot: grants, receipts, fences, adoption and orders to delete.

use super::*;

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
