//! The catalogue as a file: old versions, damage, a full disk, backups, and starting from one.

#![allow(clippy::unwrap_used, reason = "the helpers between the tests belong to them")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{Catalogue, T0, node, open_store, report, video};
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::manifest::VideoStatus;
use vstack_core::node::NodeState;
use vstack_core::paxos::master::Conflict;
use vstack_core::time::UnixMillis;
use vstack_meta::{
    Behind, CatalogueObject, Cmd, ManifestSource, MetaError, MetaStore, Reply, SqliteMetaStore, begin_anew,
    check_file, restore,
};

/// Written by the first version: video 1 is active, 2 has one of two chunks, 3 is deleted.
const SCHEMA_1: &[u8] = include_bytes!("golden/schema-1.db");

fn file_in(folder: &Path) -> std::path::PathBuf {
    folder.join("catalogue.db")
}

#[tokio::test]
async fn a_catalogue_of_the_first_version_is_migrated_and_the_old_file_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(file_in(folder.path()), SCHEMA_1).unwrap();
    let store = open_store(folder.path());

    let source = store.manifest_source(video(1)).await.unwrap().unwrap();
    assert_eq!(
        (source.video.status, source.video.views),
        (VideoStatus::Active, 3)
    );
    assert_eq!(
        source.video.popularity.score, 3.0,
        "old views count as new as the video"
    );
    assert_eq!(
        (source.chunks.len(), source.init_data.as_deref()),
        (3, Some(&b"init"[..]))
    );
    assert!(
        store
            .nodes()
            .await
            .unwrap()
            .iter()
            .all(|node| node.state == NodeState::Active)
    );
    assert_eq!(store.manifest_source(video(3)).await.unwrap(), None);
    assert_eq!(store.check().await.unwrap(), []);
    assert_eq!(store.generation(), 2, "the first version's start was the first");

    let kept = std::fs::read(folder.path().join("catalogue.db.schema-1")).unwrap();
    assert_eq!(&kept[..16], b"SQLite format 3\0");
    drop(store);
    // A second start changes neither.
    assert_eq!(open_store(folder.path()).check().await.unwrap(), []);
    assert!(std::fs::read(folder.path().join("catalogue.db.schema-1")).unwrap() == kept);
}

/// A closed catalogue with two videos.
async fn closed() -> tempfile::TempDir {
    let catalogue = Catalogue::new().await;
    for number in 1..=2 {
        catalogue.active_video(video(number), 20).await;
    }
    let Catalogue { store, folder } = catalogue;
    drop(store);
    folder
}

#[tokio::test]
async fn a_catalogue_without_threads_reads_and_writes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteMetaStore::open_on_caller(&file_in(folder.path())).unwrap();
    let catalogue = Catalogue::of(store, folder).await;
    catalogue.active_video(video(1), 20).await;
    catalogue.assert_sound().await;
    let Catalogue { store, folder } = catalogue;
    let written = store.manifest_source(video(1)).await.unwrap();
    assert_eq!(written.as_ref().map(|source| source.chunks.len()), Some(21));
    drop(store);
    let again = open_store(folder.path());
    assert_eq!(again.manifest_source(video(1)).await.unwrap(), written);
    assert_eq!(again.generation(), 2);
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_next_step_and_not_written_to() {
    let folder = closed().await;
    let path = file_in(folder.path());
    let good = std::fs::read(&path).unwrap();
    let title = good
        .windows(7)
        .position(|text| text == b"Video 1")
        .expect("the title is in the file");
    for (what, offset) in [("a letter of a title", title), ("the tree of a table", 4096 * 3)] {
        let mut bad = good.clone();
        bad[offset] ^= 0x40;
        std::fs::write(&path, &bad).unwrap();
        let refused = SqliteMetaStore::open(&path).expect_err(what);
        assert!(
            matches!(refused, MetaError::Damaged { .. }),
            "{what}: {refused:?}"
        );
        let text = refused.to_string();
        assert!(
            text.contains("vstack restore") && text.contains("vstack meta rebuild"),
            "{text}"
        );
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bad,
            "{what}: the file was written to"
        );
    }
    std::fs::write(&path, b"not a database, but long enough to be looked at as one").unwrap();
    assert!(SqliteMetaStore::open(&path).is_err());
}

#[tokio::test]
async fn no_flipped_bit_makes_another_manifest() {
    let folder = closed().await;
    let path = file_in(folder.path());
    let good = std::fs::read(&path).unwrap();
    let expected = {
        let store = open_store(folder.path());
        let mut all = BTreeMap::new();
        for number in 1..=2 {
            all.insert(
                number,
                store.manifest_source(video(number)).await.unwrap().unwrap(),
            );
        }
        all
    };
    let (mut refused, mut untouched) = (0, 0);
    // A prime: all pages are met, at ever other places.
    for offset in (0..good.len()).step_by(1_259) {
        let mut bad = good.clone();
        bad[offset] ^= 1 << (offset % 8);
        std::fs::write(&path, &bad).unwrap();
        for beside in ["catalogue.db-wal", "catalogue.db-shm"] {
            drop(std::fs::remove_file(folder.path().join(beside)));
        }
        let Ok(store) = SqliteMetaStore::open(&path) else {
            refused += 1;
            continue;
        };
        untouched += 1;
        for (&number, before) in &expected {
            if let Ok(Some(after)) = store.manifest_source(video(number)).await {
                assert_eq!(&placements(&after), &placements(before), "byte {offset}");
            }
        }
    }
    assert!(refused > 0 && untouched > 0, "{refused} refused, {untouched} not");
}

fn placements(source: &ManifestSource) -> impl PartialEq + std::fmt::Debug {
    let chunks: Vec<_> = source
        .chunks
        .iter()
        .map(|chunk| {
            (
                chunk.chunk,
                chunk.epoch,
                chunk.placement.clone(),
                chunk.media.clone(),
            )
        })
        .collect();
    let nodes: Vec<_> = source
        .nodes
        .values()
        .map(|node| (node.node, node.url.clone(), node.incarnation))
        .collect();
    (
        source.video.title.clone(),
        source.video.total_chunks,
        chunks,
        nodes,
    )
}

#[tokio::test]
async fn a_damage_that_is_found_later_ends_writing_and_not_reading() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    rusqlite::Connection::open(catalogue.path())
        .unwrap()
        .execute("UPDATE chunks SET checksum = 'x' WHERE kind = 0", [])
        .unwrap();
    let findings = catalogue.store.check().await.unwrap();
    let damage = findings.iter().find(|finding| finding.is_damage).unwrap();
    catalogue.store.refuse_commands(damage);
    let refused = catalogue
        .apply(Cmd::Heartbeat {
            report: report(1),
            now: T0,
        })
        .await;
    assert!(matches!(refused, Err(MetaError::Damaged { .. })), "{refused:?}");
    assert_eq!(catalogue.store.nodes().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_backup_is_whole_and_the_catalogue_goes_on() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 3).await;
    let target = catalogue.folder.path().join("copy.db");
    let facts = catalogue.store.backup(target.clone()).await.unwrap();
    assert_eq!((facts.videos, facts.chunks), (1, 4));
    assert_eq!(facts.bytes, std::fs::metadata(&target).unwrap().len());
    assert_eq!(check_file(&target).unwrap(), []);
    catalogue.active_video(video(2), 1).await;
    // The next one replaces it.
    assert_eq!(catalogue.store.backup(target).await.unwrap().videos, 2);
}

#[tokio::test]
async fn a_damaged_catalogue_makes_no_backup() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    rusqlite::Connection::open(catalogue.path())
        .unwrap()
        .execute("UPDATE videos SET title = 'y'", [])
        .unwrap();
    let target = catalogue.folder.path().join("copy.db");
    let refused = catalogue.store.backup(target.clone()).await;
    assert!(matches!(refused, Err(MetaError::Damaged { .. })), "{refused:?}");
    assert!(!target.exists());
}

/// The catalogue as it was before video 2 came, and the object of video 2.
async fn older_than_its_nodes() -> (Catalogue, CatalogueObject) {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let copy = catalogue.folder.path().join("backup.db");
    catalogue.store.backup(copy.clone()).await.unwrap();
    catalogue.active_video(video(2), 2).await;
    let source = catalogue.store.manifest_source(video(2)).await.unwrap().unwrap();
    let Catalogue { store, folder } = catalogue;
    drop(store);
    let (_, aside) = restore(&copy, &file_in(folder.path()), T0).unwrap();
    assert!(aside.iter().all(|path| path.exists()) && !aside.is_empty());
    let store = open_store(folder.path());
    (Catalogue { store, folder }, CatalogueObject::of(&source))
}

#[tokio::test]
async fn a_restored_catalogue_grants_nothing_until_it_has_caught_up() {
    let (catalogue, object) = older_than_its_nodes().await;
    assert_eq!(catalogue.store.behind().await.unwrap(), Behind::Generations);
    let chunk = ChunkId::media(video(9), 0);
    catalogue.create(video(9)).await;
    assert_eq!(catalogue.open(chunk, &[1, 2, 3]).await, Err(MetaError::Restored));
    let delete = Cmd::DeleteVideo {
        video: video(1),
        now: T0,
    };
    assert_eq!(catalogue.apply(delete).await, Err(MetaError::Restored));

    let mut ahead = report(1);
    ahead.highest_generation = 40;
    catalogue
        .done(Cmd::Heartbeat {
            report: ahead,
            now: T0,
        })
        .await;
    import(&catalogue, &object, 1).await;
    catalogue.done(Cmd::CaughtUp { to: Behind::Objects }).await;
    let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
    assert!(opened.ballot.generation() > 40, "{}", opened.ballot);
    catalogue.done(Cmd::CaughtUp { to: Behind::Ballots }).await;
    assert_eq!(
        catalogue.store.behind().await.unwrap(),
        Behind::Objects,
        "it does not fall back"
    );
    assert!(catalogue.store.manifest_source(video(2)).await.unwrap().is_some());
    catalogue.assert_sound().await;
}

/// A catalogue that was restored from a backup of the moment when video 1 had an open ballot.
async fn restored_while_open() -> (Catalogue, ChunkId, vstack_meta::OpenedChunk) {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let chunk = ChunkId::media(video(1), 0);
    let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
    let copy = catalogue.folder.path().join("backup.db");
    catalogue.store.backup(copy.clone()).await.unwrap();
    let Catalogue { store, folder } = catalogue;
    drop(store);
    restore(&copy, &file_in(folder.path()), T0).unwrap();
    let store = open_store(folder.path());
    (Catalogue { store, folder }, chunk, opened)
}

#[tokio::test]
async fn a_ballot_that_was_open_in_the_backup_never_commits() {
    // Since the backup it may have been decided, replaced and its objects deleted.
    let (catalogue, chunk, opened) = restored_while_open().await;
    let late = catalogue.commit(chunk, opened.ballot, &[1, 2, 3]).await;
    let fenced = matches!(late, Err(MetaError::Conflict(Conflict::Fenced { .. })));
    assert!(fenced, "{late:?}");
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_restored_catalogue_goes_above_a_generation_that_its_nodes_saw_by_one() {
    let (catalogue, chunk, _) = restored_while_open().await;
    // The lost life had started once more since the backup, so it had this very number.
    let mut node = report(1);
    node.highest_generation = catalogue.store.generation();
    let heartbeat = |report| Cmd::Heartbeat { report, now: T0 };
    let reply = catalogue.done(heartbeat(node.clone())).await;
    let announced = |reply| match reply {
        Reply::Heartbeat(reply) => reply.generation,
        other => unreachable!("a heartbeat is answered by {other:?}"),
    };
    assert_eq!(announced(reply), None, "another node may have seen a later one");
    catalogue.done(Cmd::CaughtUp { to: Behind::Ballots }).await;
    let told = announced(catalogue.done(heartbeat(node.clone())).await).unwrap();
    assert!(
        told > node.highest_generation,
        "it is announced before it is granted in"
    );
    assert_eq!(catalogue.open(chunk, &[1, 2, 3]).await, Err(MetaError::Restored));
    let mut noted = report(2);
    noted.highest_generation = told;
    assert_eq!(announced(catalogue.done(heartbeat(noted)).await), Some(told));
    catalogue.done(Cmd::CaughtUp { to: Behind::Objects }).await;
    let opened = catalogue.open(chunk, &[1, 2, 3]).await.unwrap();
    let granted = opened.ballot.generation();
    assert_eq!(granted, told, "{}", opened.ballot);
    // From now on it tells its generation, and a node that repeats it changes nothing.
    node.highest_generation = granted;
    assert_eq!(announced(catalogue.done(heartbeat(node)).await), Some(granted));
}

#[tokio::test]
async fn one_backup_restored_twice_never_has_the_same_generation() {
    let catalogue = Catalogue::new().await;
    let before = catalogue.store.generation();
    let copy = catalogue.folder.path().join("backup.db");
    catalogue.store.backup(copy.clone()).await.unwrap();
    let Catalogue { mut store, folder } = catalogue;
    let mut generations = vec![before];
    for hours in [0, 1] {
        drop(store);
        let now = UnixMillis(1_780_000_000_000 + hours * 3_600_000);
        restore(&copy, &file_in(folder.path()), now).unwrap();
        store = open_store(folder.path());
        generations.push(store.generation());
    }
    // More starts than there can have been since the backup.
    assert!(generations[1] > before + 1_000, "{generations:?}");
    assert_ne!(generations[1], generations[2]);
}

async fn import(catalogue: &Catalogue, object: &CatalogueObject, seq: u32) -> vstack_meta::Imported {
    let bytes = object.to_bytes().unwrap();
    let id = ChunkId::new(object.video_id, vstack_core::id::ChunkKind::Catalogue, 0, seq).unwrap();
    let object = Box::new(CatalogueObject::from_bytes(id, &bytes).unwrap());
    match catalogue.done(Cmd::Import { object, seq, now: T0 }).await {
        Reply::Imported(imported) => imported,
        other => unreachable!("an import is answered by {other:?}"),
    }
}

#[tokio::test]
async fn a_rebuilt_catalogue_equals_the_original() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 3).await;
    let before = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    let Catalogue { store, folder } = catalogue;
    drop(store);
    begin_anew(&file_in(folder.path()), T0).unwrap();
    let rebuilt = Catalogue {
        store: open_store(folder.path()),
        folder,
    };
    // Nodes 1 and 2 have reported, 3 is dead: its parts are expected to be where they were.
    for number in 1..=2 {
        rebuilt
            .done(Cmd::Heartbeat {
                report: report(number),
                now: T0,
            })
            .await;
    }
    let imported = import(&rebuilt, &CatalogueObject::of(&before), 7).await;
    assert_eq!((imported.new_video, imported.chunks), (true, 4));
    let again = import(&rebuilt, &CatalogueObject::of(&before), 7).await;
    assert_eq!((again.new_video, again.chunks), (false, 0));

    let after = rebuilt.store.manifest_source(video(1)).await.unwrap().unwrap();
    let (mut expected, mut found) = (CatalogueObject::of(&before), CatalogueObject::of(&after));
    expected.views = 0;
    found.views = 0;
    assert_eq!(found, expected);
    assert_eq!(after.chunks, before.chunks);
    assert_eq!(after.video.catalogue_seq, 7, "the next one is numbered above it");
    let dead = rebuilt
        .store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .find(|known| known.node == node(3))
        .unwrap();
    assert_eq!(
        (dead.known_url(), dead.incarnation),
        (None, support::life(node(3)))
    );
    rebuilt.assert_sound().await;
}

#[tokio::test]
async fn an_import_never_goes_back_and_never_revives() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let old = CatalogueObject::of(&catalogue.store.manifest_source(video(1)).await.unwrap().unwrap());
    catalogue
        .done(Cmd::CatalogueSaved {
            chunk: ChunkId::new(video(1), vstack_core::id::ChunkKind::Catalogue, 0, 5).unwrap(),
            unsaved: 1,
            now: T0,
        })
        .await;
    catalogue
        .done(Cmd::RenameVideo {
            video: video(1),
            title: "newer".into(),
        })
        .await;
    assert_eq!(
        import(&catalogue, &old, 4).await,
        vstack_meta::Imported::default()
    );
    let title = async || {
        catalogue
            .store
            .video(video(1))
            .await
            .unwrap()
            .unwrap()
            .video
            .title
    };
    assert_eq!(title().await, "newer");
    catalogue
        .done(Cmd::DeleteVideo {
            video: video(1),
            now: T0,
        })
        .await;
    assert_eq!(
        import(&catalogue, &old, 9).await,
        vstack_meta::Imported::default()
    );
    assert_eq!(catalogue.store.manifest_source(video(1)).await.unwrap(), None);
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn parts_on_a_disk_that_was_replaced_since_are_lost() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let mut object = CatalogueObject::of(&catalogue.store.manifest_source(video(1)).await.unwrap().unwrap());
    for chunk in &mut object.chunks {
        chunk.epoch = vstack_core::ballot::Ballot::from_number(chunk.epoch.number() + 1);
    }
    let other: NodeId = node(2);
    object.incarnations.insert(other, support::life(node(77)));
    assert_eq!(import(&catalogue, &object, 9).await.chunks, 2);
    let chunk = catalogue
        .store
        .chunk(ChunkId::media(video(1), 0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(chunk.lost.into_iter().collect::<Vec<_>>(), [other]);
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_video_is_unsaved_until_its_object_is_written_and_old_objects_end() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let waiting = catalogue.store.unsaved(T0, 9).await.unwrap();
    assert_eq!(waiting.len(), 1, "an active video is written at once");
    let object = |seq| ChunkId::new(video(1), vstack_core::id::ChunkKind::Catalogue, 0, seq).unwrap();
    for seq in 1..=2 {
        catalogue.store_chunk(object(seq), &[1, 2, 3]).await;
        catalogue
            .done(Cmd::CatalogueSaved {
                chunk: object(seq),
                unsaved: waiting[0].changes,
                now: T0,
            })
            .await;
    }
    assert_eq!(catalogue.store.unsaved(T0, 9).await.unwrap(), []);
    assert_eq!(catalogue.store.chunk(object(1)).await.unwrap(), None);
    assert!(catalogue.store.chunk(object(2)).await.unwrap().is_some());
    catalogue
        .done(Cmd::RenameVideo {
            video: video(1),
            title: "b".into(),
        })
        .await;
    assert_eq!(
        catalogue.store.unsaved(UnixMillis(T0.0 - 1), 9).await.unwrap(),
        [],
        "not before a minute has passed"
    );
    assert_eq!(catalogue.store.unsaved(T0, 9).await.unwrap().len(), 1);
    catalogue.assert_sound().await;
}
