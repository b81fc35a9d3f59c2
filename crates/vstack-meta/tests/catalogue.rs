//! The catalogue on real files: uploads, ends of videos, kills, damage.

mod support;

use rusqlite::Connection;
use support::{Catalogue, T0, commit_of, finalize_of, node, open_of, report, url, video};
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::limits::{COLLECT_GRACE_MS, VIEW_HALF_LIFE_MS, VIEW_SESSION_KEPT_MS};
use vstack_core::manifest::VideoStatus;
use vstack_core::paxos::master::Conflict;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, Collectable, LibraryOrder, LibraryQuery, MetaError, MetaStore, Reply};

#[tokio::test]
async fn an_upload_becomes_an_active_video_with_every_part_resolved() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 3).await;
    let source = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    assert_eq!(
        (source.video.status, source.video.total_chunks),
        (VideoStatus::Active, 3)
    );
    let chunks: Vec<_> = source.chunks.iter().map(|chunk| chunk.chunk).collect();
    let media = (0..3).map(|seq| ChunkId::media(video(1), seq));
    assert_eq!(
        chunks,
        [ChunkId::init(video(1))]
            .into_iter()
            .chain(media)
            .collect::<Vec<_>>()
    );
    assert_eq!(source.chunks[2].media.start_ms, 10_000);
    assert_eq!(source.nodes[&node(1)].url, url(1));
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill_and_ballots_start_above_all_earlier_ones() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 2).await;
    catalogue.create(video(2)).await;
    let chunk = ChunkId::media(video(2), 0);
    let granted = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();

    let revived = catalogue.as_after_kill();
    assert!(revived.store.generation() > catalogue.store.generation());
    let before = catalogue.store.manifest_source(video(1)).await.unwrap();
    assert_eq!(revived.store.manifest_source(video(1)).await.unwrap(), before);
    revived.assert_sound().await;
    let again = revived.open(chunk, &[1, 2, 3]).await.unwrap();
    assert!(again.ballot > granted.ballot);
    assert_eq!(again.ballot.generation(), revived.store.generation());
    let late = revived.commit(chunk, granted.ballot, &[1, 2, 3]).await;
    assert!(
        matches!(late, Err(MetaError::Conflict(Conflict::Fenced { .. }))),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_catalogue_restored_from_a_backup_goes_above_what_the_nodes_have_seen() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let seen = 40;
    let report = vstack_meta::NodeReport {
        highest_generation: seen,
        ..report(1)
    };
    catalogue.done(Cmd::Heartbeat { report, now: T0 }).await;
    let opened = catalogue
        .open(ChunkId::media(video(1), 0), &[1, 2, 3])
        .await
        .unwrap();
    assert!(opened.ballot.generation() > seen);
    let restarted = catalogue.restarted();
    assert!(restarted.store.generation() > seen + 1);
}

#[tokio::test]
async fn a_refused_command_leaves_the_others_of_its_group_alone() {
    let catalogue = Catalogue::new().await;
    let create = |number| Cmd::CreateVideo {
        key: None,
        video: video(number),
        title: "t".into(),
        duration_sec: 0.0,
        now: T0,
    };
    let answers = catalogue.store.apply(vec![create(1), create(1), create(2)]).await;
    assert_eq!(
        answers,
        [
            Ok(Reply::Created(video(1))),
            Err(MetaError::VideoExists { video: video(1) }),
            Ok(Reply::Created(video(2)))
        ]
    );
    assert!(catalogue.store.video(video(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn two_copies_are_on_the_list_for_repair() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let chunk = ChunkId::media(video(1), 0);
    let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
    let decided = catalogue.commit(chunk, opened.ballot, &[1, 2]).await.unwrap();
    assert_eq!(decided.missing_parts, 1);
    let waiting = catalogue.store.under_replicated(10).await.unwrap();
    assert_eq!(
        waiting
            .iter()
            .map(|item| (item.chunk, item.missing_parts))
            .collect::<Vec<_>>(),
        [(chunk, 1)]
    );
    // What the third node may have written under that ballot is nobody's.
    let stray = Collectable {
        node: node(3),
        object: chunk,
        ballot: opened.ballot,
    };
    assert!(catalogue.store.is_queued(stray).await.unwrap());
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_repeated_commit_is_answered_even_after_the_video_became_active() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let chunk = ChunkId::media(video(1), 0);
    let epoch = catalogue.store.chunk(chunk).await.unwrap().unwrap().epoch;
    assert!(catalogue.commit(chunk, epoch, &[1, 2, 3]).await.unwrap().replayed);
}

#[tokio::test]
async fn a_video_with_gaps_does_not_become_active() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    for seq in [0, 2] {
        catalogue
            .store_chunk(ChunkId::media(video(1), seq), &[1, 2, 3])
            .await;
    }
    let refused = catalogue
        .apply(Cmd::Finalize(Box::new(finalize_of(video(1), Some(4)))))
        .await;
    let missing = [
        ChunkId::init(video(1)),
        ChunkId::media(video(1), 1),
        ChunkId::media(video(1), 3),
    ];
    assert_eq!(
        refused,
        Err(MetaError::ChunksMissing {
            missing: missing.into()
        })
    );
    let counted_less = catalogue
        .apply(Cmd::Finalize(Box::new(finalize_of(video(1), Some(2)))))
        .await;
    assert!(
        matches!(counted_less, Err(MetaError::Inconsistent { .. })),
        "{counted_less:?}"
    );
}

#[tokio::test]
async fn nothing_joins_a_video_that_is_active() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    catalogue.store_chunk(ChunkId::init(video(1)), &[1, 2, 3]).await;
    catalogue
        .store_chunk(ChunkId::media(video(1), 0), &[1, 2, 3])
        .await;
    let late = ChunkId::media(video(1), 1);
    let opened = catalogue.open(late, &[1, 2, 3]).await.unwrap();
    catalogue
        .done(Cmd::Finalize(Box::new(finalize_of(video(1), Some(1)))))
        .await;
    assert!(catalogue.commit(late, opened.ballot, &[1, 2, 3]).await.is_err());
    assert!(matches!(
        catalogue.open(late, &[1, 2, 3]).await,
        Err(MetaError::VideoState { .. })
    ));
    let stray = Collectable {
        node: node(1),
        object: late,
        ballot: opened.ballot,
    };
    assert!(catalogue.store.is_queued(stray).await.unwrap());
    // Finalizing again is no error, and a poster may still come.
    catalogue
        .done(Cmd::Finalize(Box::new(finalize_of(video(1), Some(1)))))
        .await;
    catalogue.store_chunk(ChunkId::poster(video(1)), &[1, 2, 3]).await;
    assert!(catalogue.store.video(video(1)).await.unwrap().unwrap().has_poster);
}

#[tokio::test]
async fn a_deleted_video_is_gone_for_readers_and_every_part_is_queued() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 2).await;
    catalogue
        .done(Cmd::DeleteVideo {
            video: video(1),
            now: T0,
        })
        .await;
    assert_eq!(catalogue.store.manifest_source(video(1)).await.unwrap(), None);
    const CHUNKS: u64 = 3;
    assert_eq!(catalogue.store.collections_waiting().await.unwrap(), CHUNKS * 3);
    assert_eq!(
        catalogue.store.collectable(T0, 100).await.unwrap(),
        [],
        "readers with an old manifest have a grace"
    );
    let due = catalogue
        .store
        .collectable(T0 + COLLECT_GRACE_MS, 100)
        .await
        .unwrap();
    assert_eq!(due.len(), 9);
    catalogue.done(Cmd::CollectDone { objects: due }).await;
    assert_eq!(catalogue.store.collections_waiting().await.unwrap(), 0);
    // Twice is no error, and the ids are never used again.
    catalogue
        .done(Cmd::DeleteVideo {
            video: video(1),
            now: T0,
        })
        .await;
    assert!(
        catalogue
            .open(ChunkId::media(video(1), 0), &[1, 2, 3])
            .await
            .is_err()
    );
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_failed_upload_leaves_nothing_in_the_library_and_its_late_commits_are_fenced() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    catalogue
        .store_chunk(ChunkId::media(video(1), 0), &[1, 2, 3])
        .await;
    let in_flight = ChunkId::media(video(1), 1);
    let opened = catalogue.open(in_flight, &[3, 4, 5]).await.unwrap();
    catalogue
        .done(Cmd::AbortVideo {
            video: video(1),
            now: T0,
        })
        .await;

    assert_eq!(catalogue.store.video(video(1)).await.unwrap(), None);
    assert_eq!(catalogue.store.collectable(T0, 100).await.unwrap().len(), 6);
    let late = catalogue.commit(in_flight, opened.ballot, &[3, 4, 5]).await;
    assert!(
        matches!(late, Err(MetaError::Conflict(Conflict::Fenced { .. }))),
        "{late:?}"
    );
    let open = catalogue.open(in_flight, &[3, 4, 5]).await;
    assert_eq!(open, Err(MetaError::VideoNotFound { video: video(1) }));
    catalogue.assert_sound().await;

    catalogue.active_video(video(2), 1).await;
    let active = catalogue
        .apply(Cmd::AbortVideo {
            video: video(2),
            now: T0,
        })
        .await;
    assert!(matches!(active, Err(MetaError::VideoState { .. })), "{active:?}");
}

#[tokio::test]
async fn the_library_is_searched_ordered_and_cut_into_pages() {
    let catalogue = Catalogue::new().await;
    for (number, title) in [
        (1, "Ärger im Zoo"),
        (2, "Bergtour"),
        (3, "'; DROP TABLE videos --"),
    ] {
        let now = T0 + u64::try_from(number).unwrap();
        let title = title.to_owned();
        catalogue
            .done(Cmd::CreateVideo {
                key: None,
                video: video(number),
                title,
                duration_sec: 1.0,
                now,
            })
            .await;
    }
    catalogue.done(view_of(2, None, T0)).await;
    let page = async |search: &str, order, offset, limit| {
        let query = LibraryQuery {
            search: search.into(),
            order,
            offset,
            limit,
            now: T0,
            ..LibraryQuery::default()
        };
        let page = catalogue.store.library(query).await.unwrap();
        (
            page.videos
                .iter()
                .map(|entry| entry.video.video.0.as_u128())
                .collect::<Vec<_>>(),
            page.total,
        )
    };
    assert_eq!(page("", LibraryOrder::Newest, 0, 10).await, (vec![3, 2, 1], 3));
    assert_eq!(page("", LibraryOrder::Newest, 1, 1).await, (vec![2], 3));
    assert_eq!(page("", LibraryOrder::Newest, u64::MAX, 1).await, (vec![], 3));
    assert_eq!(page("ÄRGER", LibraryOrder::Title, 0, 10).await, (vec![1], 1));
    assert_eq!(page("%", LibraryOrder::Title, 0, 10).await, (vec![], 0));
    assert_eq!(page("'; DROP", LibraryOrder::Title, 0, 10).await, (vec![3], 1));
    assert_eq!(page("", LibraryOrder::Views, 0, 1).await, (vec![2], 3));
}

#[tokio::test]
async fn a_renamed_video_is_found_under_its_new_title() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    catalogue
        .done(Cmd::RenameVideo {
            video: video(1),
            title: "Neu".into(),
        })
        .await;
    let query = LibraryQuery {
        search: "neu".into(),
        limit: 5,
        ..LibraryQuery::default()
    };
    let page = catalogue.store.library(query).await.unwrap();
    assert_eq!(page.videos[0].video.title, "Neu");
    assert_eq!(page.videos[0].video.status, VideoStatus::Active);
}

#[tokio::test]
async fn ballot_0_is_collected_once_a_plain_clients_chunk_is_committed() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let chunk = ChunkId::media(video(1), 0);
    let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
    let plain = Collectable {
        node: node(1),
        object: chunk,
        ballot: Ballot::PLAIN,
    };
    assert!(!catalogue.store.is_queued(plain).await.unwrap());
    let mut commit = commit_of(chunk, opened.ballot, &[1, 2, 3]);
    commit.plain_nodes = vec![node(1), node(2), node(3)];
    catalogue.done(Cmd::Commit(Box::new(commit))).await;
    assert!(catalogue.store.is_queued(plain).await.unwrap());
}

/// Changes the file behind the catalogue's back, as a flipped bit does.
fn damage(catalogue: &Catalogue, sql: &str) {
    let file = Connection::open(catalogue.path()).expect("the file is there");
    let changed = file.execute(sql, []).expect("the statement is sound");
    assert!(changed > 0, "the statement met no row");
}

fn view_of(number: u128, session: Option<&str>, now: UnixMillis) -> Cmd {
    Cmd::RecordView {
        video: video(number),
        session: session.map(str::to_owned),
        half_life_ms: VIEW_HALF_LIFE_MS,
        now,
    }
}

#[tokio::test]
async fn a_session_is_counted_once_and_for_one_video() {
    let catalogue = Catalogue::new().await;
    for number in 1..=2 {
        catalogue.create(video(number)).await;
    }
    for _ in 0..3 {
        catalogue.done(view_of(1, Some("a"), T0)).await;
    }
    catalogue.done(view_of(1, Some("b"), T0)).await;
    let views = async || {
        catalogue
            .store
            .video(video(1))
            .await
            .unwrap()
            .unwrap()
            .video
            .views
    };
    assert_eq!(views().await, 2);
    let session = "a".to_owned();
    assert_eq!(
        catalogue.apply(view_of(2, Some("a"), T0)).await,
        Err(MetaError::OtherVideo { session })
    );
    // What is remembered of sessions does not grow for ever.
    let later = T0 + 2 * VIEW_SESSION_KEPT_MS;
    catalogue.done(view_of(1, Some("c"), later)).await;
    let file = Connection::open(catalogue.path()).unwrap();
    let kept: i64 = file
        .query_row("SELECT count(*) FROM view_sessions", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn what_was_watched_lately_leads_over_what_was_watched_more() {
    let catalogue = Catalogue::new().await;
    for number in 1..=2 {
        catalogue.create(video(number)).await;
    }
    for _ in 0..5 {
        catalogue.done(view_of(1, None, T0)).await;
    }
    let later = T0 + 4 * VIEW_HALF_LIFE_MS;
    catalogue.done(view_of(2, None, later)).await;
    let first = async |now| {
        let query = LibraryQuery {
            order: LibraryOrder::Views,
            limit: 1,
            now,
            ..LibraryQuery::default()
        };
        catalogue.store.library(query).await.unwrap().videos[0]
            .video
            .clone()
    };
    let leader = first(later).await;
    assert_eq!((leader.video, leader.views), (video(2), 1));
    // With a half-life of ten years the five views count almost as much as on their day.
    let query = LibraryQuery {
        order: LibraryOrder::Views,
        limit: 1,
        now: later,
        half_life_ms: 520 * VIEW_HALF_LIFE_MS,
        ..LibraryQuery::default()
    };
    assert_eq!(
        catalogue.store.library(query).await.unwrap().videos[0]
            .video
            .video,
        video(1)
    );
}

#[tokio::test]
async fn damage_is_reported_and_never_read_as_a_placement() {
    for (table, sql) in [
        (
            "consensus_state",
            "UPDATE consensus_state SET accepted_value = replace(accepted_value, '0', '1')",
        ),
        (
            "consensus_state",
            "UPDATE consensus_state SET promised_ballot = promised_ballot + 1",
        ),
        ("chunks", "UPDATE chunks SET start_ms = start_ms + 1"),
        ("videos", "UPDATE videos SET title = title || 'x'"),
        (
            "storage_nodes",
            "UPDATE storage_nodes SET incarnation = '00000000-0000-0000-0000-000000000000'",
        ),
    ] {
        let catalogue = Catalogue::new().await;
        catalogue.active_video(video(1), 1).await;
        damage(&catalogue, sql);
        let read = catalogue.store.manifest_source(video(1)).await;
        assert!(
            matches!(read, Err(MetaError::Corrupt { table: found, .. }) if found == table),
            "{sql}: {read:?}"
        );
        let findings = catalogue.store.check().await.unwrap();
        assert!(
            findings.iter().any(|finding| finding.table == table),
            "{sql}: {findings:?}"
        );
    }
}

#[tokio::test]
async fn a_projection_that_differs_is_found() {
    for sql in [
        "DELETE FROM chunk_replicas WHERE node_url LIKE '%7001'",
        "UPDATE chunk_replicas SET ballot_number = ballot_number + 1",
        "UPDATE chunks SET missing_parts = 2",
        "DELETE FROM chunks",
        "DELETE FROM consensus_state",
    ] {
        let catalogue = Catalogue::new().await;
        catalogue.active_video(video(1), 1).await;
        catalogue.assert_sound().await;
        damage(&catalogue, sql);
        assert_ne!(catalogue.store.check().await.unwrap(), [], "{sql} went unnoticed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_answered_as_busy_and_the_rest_is_done() {
    let catalogue = Catalogue::new().await;
    let blocker = Connection::open(catalogue.path()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = std::sync::Arc::new(catalogue.store);
    let commands: Vec<_> = (0..2_000u128)
        .map(|number| {
            let store = store.clone();
            let create = Cmd::CreateVideo {
                key: None,
                video: video(number),
                title: "t".into(),
                duration_sec: 0.0,
                now: T0,
            };
            tokio::spawn(async move { store.apply_one(create).await })
        })
        .collect();
    // The writer waits for the lock with at most 256 in hand, 1024 wait behind it; the others are told at once.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(4);
    while commands.iter().filter(|command| command.is_finished()).count() < 400 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "nobody was told that the catalogue is busy"
        );
        tokio::task::yield_now().await;
    }
    blocker.execute_batch("ROLLBACK").unwrap();
    let (mut busy, mut done) = (0, 0);
    for command in commands {
        match command.await.unwrap() {
            Ok(_) => done += 1,
            Err(MetaError::Busy) => busy += 1,
            Err(other) => unreachable!("{other}"),
        }
    }
    assert_eq!(busy + done, 2_000);
    assert!(busy >= 400 && done >= 1_024, "{busy} busy, {done} done");
}

#[tokio::test]
async fn a_manifest_of_ten_thousand_chunks_is_read_and_the_video_is_deleted_in_one_go() {
    const CHUNKS: u32 = 10_000;
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    catalogue.store_chunk(ChunkId::init(video(1)), &[1, 2, 3]).await;
    let started = std::time::Instant::now();
    let all: Vec<u32> = (0..CHUNKS).collect();
    for seqs in all.chunks(250) {
        let chunk = |seq| ChunkId::media(video(1), seq);
        let opens = seqs
            .iter()
            .map(|&seq| Cmd::Open(open_of(chunk(seq), &[1, 2, 3])))
            .collect();
        let opened = catalogue.store.apply(opens).await;
        let ballots = opened.into_iter().map(|reply| reply.unwrap().opened().unwrap());
        let commits = ballots
            .map(|open| Cmd::Commit(Box::new(commit_of(open.chunk, open.ballot, &[1, 2, 3]))))
            .collect();
        assert!(catalogue.store.apply(commits).await.iter().all(Result::is_ok));
    }
    println!("{CHUNKS} chunks opened and committed in {:?}", started.elapsed());
    catalogue
        .done(Cmd::Finalize(Box::new(finalize_of(video(1), Some(CHUNKS)))))
        .await;
    let started = std::time::Instant::now();
    let source = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    println!("read in {:?}", started.elapsed());
    assert_eq!(source.chunks.len(), CHUNKS as usize + 1);
    assert!(source.chunks.is_sorted_by_key(|chunk| chunk.chunk));
    let started = std::time::Instant::now();
    catalogue
        .done(Cmd::DeleteVideo {
            video: video(1),
            now: T0,
        })
        .await;
    println!("deleted in {:?}", started.elapsed());
    assert_eq!(
        catalogue.store.collections_waiting().await.unwrap(),
        u64::from(CHUNKS + 1) * 3
    );
}
