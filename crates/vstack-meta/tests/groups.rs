//! Commands that share a transaction: each is decided as if it were alone, whatever the writer remembers from the others.

mod support;

use support::{Catalogue, T0, commit_of, facts, finalize_of, open_of, report, video};
use uuid::Uuid;
use vstack_core::id::{ChunkId, Incarnation};
use vstack_core::manifest::{MediaFacts, VideoStatus};
use vstack_core::paxos::master::{Conflict, Fault};
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, FinalizeVideo, MetaError, MetaStore, NodeReport, Reply};

fn rename(number: u128, title: &str) -> Cmd {
    Cmd::RenameVideo {
        video: video(number),
        title: title.into(),
    }
}

fn open(number: u128, seq: u32) -> Cmd {
    Cmd::Open(open_of(ChunkId::media(video(number), seq), &[1, 2, 3]))
}

async fn title(catalogue: &Catalogue, number: u128) -> String {
    let entry = catalogue.store.video(video(number)).await;
    let entry = entry.expect("the catalogue can be read");
    entry.expect("the video is there").video.title
}

#[tokio::test]
async fn a_command_that_is_refused_after_it_has_written_leaves_nothing_and_the_others_stay() {
    let catalogue = Catalogue::new().await;
    for number in [1, 2] {
        catalogue.create(video(number)).await;
        catalogue
            .store_chunk(ChunkId::media(video(number), 0), &[1, 2, 3])
            .await;
    }
    // It writes the chunk's facts, and then finds that there is no init segment.
    let other = MediaFacts {
        start_ms: 77,
        ..facts(0)
    };
    let finalize = FinalizeVideo {
        facts: vec![(0, other)],
        ..finalize_of(video(1), Some(1))
    };
    let group = vec![
        rename(2, "before"),
        open(1, 1),
        Cmd::Finalize(Box::new(finalize)),
        open(1, 2),
        rename(1, "after"),
    ];
    let answers = catalogue.store.apply(group).await;
    assert_eq!(answers[0], Ok(Reply::Done));
    assert!(
        matches!(&answers[2], Err(MetaError::ChunksMissing { missing }) if missing == &[ChunkId::init(video(1))]),
        "{answers:?}"
    );
    let ballots = [1, 3].map(|place| answers[place].clone().unwrap().opened().unwrap().ballot);
    assert_eq!(
        ballots[0], ballots[1],
        "two chunks, each opened for the first time"
    );
    assert_eq!(answers[4], Ok(Reply::Done));

    let chunk = ChunkId::media(video(1), 0);
    let stored = catalogue.store.chunk(chunk).await.unwrap().unwrap();
    assert_eq!(stored.media, facts(0));
    assert_eq!(title(&catalogue, 1).await, "after");
    assert_eq!(title(&catalogue, 2).await, "before");
    let revived = catalogue.as_after_kill();
    assert_eq!(title(&revived, 2).await, "before");
    let row = revived.store.consensus_row(ChunkId::media(video(1), 2)).await;
    assert_eq!(row.unwrap().promised, ballots[1]);
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn an_open_sees_the_end_of_its_video_in_the_same_group() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    catalogue.active_video(video(2), 1).await;
    let delete = Cmd::DeleteVideo {
        video: video(1),
        now: T0,
    };
    let group = vec![open(1, 0), delete, open(1, 1), open(2, 7)];
    let answers = catalogue.store.apply(group).await;
    assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
    assert_eq!(answers[2], Err(MetaError::VideoNotFound { video: video(1) }));
    let closed = MetaError::VideoState {
        video: video(2),
        status: VideoStatus::Active,
    };
    assert_eq!(answers[3], Err(closed));
    // And in the next one.
    let late = catalogue.apply(open(1, 2)).await;
    assert_eq!(late, Err(MetaError::VideoNotFound { video: video(1) }));
}

#[tokio::test]
async fn a_commit_sees_that_a_node_came_back_with_another_disk() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let chunks = [0, 1].map(|seq| ChunkId::media(video(1), seq));
    let mut commits = Vec::new();
    for chunk in chunks {
        let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
        let commit = commit_of(chunk, opened.ballot, &[1, 2, 3]);
        commits.push(Cmd::Commit(Box::new(commit)));
    }
    let late = UnixMillis(T0.0 + 60_000);
    let report = NodeReport {
        incarnation: Incarnation(Uuid::from_u128(9)),
        ..report(2)
    };
    commits.insert(1, Cmd::Heartbeat { report, now: late });
    let answers = catalogue.store.apply(commits).await;
    assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
    let fault = Fault::OtherIncarnation;
    assert!(
        matches!(&answers[2], Err(MetaError::Conflict(Conflict::Unproven { fault: found, .. })) if *found == fault),
        "{answers:?}"
    );
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn every_commit_counts_as_a_change_of_its_video_once() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let mut commits = Vec::new();
    for seq in 0..5 {
        let chunk = ChunkId::media(video(1), seq);
        let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
        let commit = commit_of(chunk, opened.ballot, &[1, 2, 3]);
        commits.push(Cmd::Commit(Box::new(commit)));
    }
    let changes = async |catalogue: &Catalogue| {
        let far = UnixMillis(T0.0 + 1_000_000);
        let unsaved = catalogue.store.unsaved(far, 10).await.unwrap();
        unsaved[0].changes
    };
    let before = changes(&catalogue).await;
    // The second round is a repeat, which changes nothing.
    for _ in 0..2 {
        let answers = catalogue.store.apply(commits.clone()).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(changes(&catalogue).await, before + 5);
    }
}
