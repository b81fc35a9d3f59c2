//! What the redundancy policy and the repair planner look at.

use rusqlite::{Connection, Row as SqlRow};
use vstack_core::cost::PlacedChunks;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::placement::Scheme;
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use super::chunks::{ChunkRecord, find_chunk};
use crate::codec::{Place, from_word, json_column, signed};
use crate::error::MetaError;

/// An active video, as far as redundancy goes. Only media chunks are ever converted.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRedundancy {
    pub video: VideoId,
    pub title: String,
    pub created_at: UnixMillis,
    pub popularity: Popularity,
    /// Of its media chunks, each counted once.
    pub size_bytes: u64,
    /// Its media chunks.
    pub chunks: u64,
    /// Those of them that are erasure-coded, and their bytes.
    pub erasure_chunks: u64,
    pub erasure_bytes: u64,
    pub pin: Option<Scheme>,
    pub converted_at: Option<UnixMillis>,
}

/// All active videos that have media chunks.
pub(crate) fn videos(connection: &Connection) -> Result<Vec<VideoRedundancy>, MetaError> {
    let mut query = connection.prepare_cached(&format!("{VIDEOS} GROUP BY v.video_id"))?;
    let mut found = query.query([ChunkKind::Media as u8])?;
    let mut videos = Vec::new();
    while let Some(row) = found.next()? {
        videos.push(video(row)?);
    }
    Ok(videos)
}

/// Active videos with the media chunks of each.
const VIDEOS: &str =
    "SELECT v.video_id, v.title, v.created_at, v.views_recent, v.views_at, r.pin, r.converted_at, count(*),
    sum(c.size_bytes), sum(c.scheme <> 'rep'), sum(c.size_bytes * (c.scheme <> 'rep'))
  FROM videos v JOIN chunks c ON c.video_id = v.video_id AND c.kind = ?1
    LEFT JOIN video_redundancy r ON r.video_id = v.video_id
  WHERE v.status = 'active'";

/// One of them.
pub(crate) fn video_of(connection: &Connection, of: VideoId) -> Result<Option<VideoRedundancy>, MetaError> {
    let mut query =
        connection.prepare_cached(&format!("{VIDEOS} AND v.video_id = ?2 GROUP BY v.video_id"))?;
    let mut found = query.query((ChunkKind::Media as u8, of.to_string()))?;
    found.next()?.map(video).transpose()
}

const PIN: &str = "SELECT r.pin FROM videos v LEFT JOIN video_redundancy r ON r.video_id = v.video_id
  WHERE v.video_id = ?1 AND v.status = 'active'";

/// What an operator fixed for an active video.
pub(crate) fn pin_of(connection: &Connection, of: VideoId) -> Result<Option<Option<Scheme>>, MetaError> {
    let key = of.to_string();
    let place = Place {
        table: "video_redundancy",
        key: &key,
    };
    let mut query = connection.prepare_cached(PIN)?;
    let mut found = query.query([&key])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let pin: Option<String> = row.get(0)?;
    pin.map(|word| from_word(place, &word)).transpose().map(Some)
}

fn video(row: &SqlRow<'_>) -> Result<VideoRedundancy, MetaError> {
    let key: String = row.get(0)?;
    let place = Place {
        table: "video_redundancy",
        key: &key,
    };
    let number = |column: usize| -> Result<u64, MetaError> { place.unsigned(row.get(column)?) };
    let pin: Option<String> = row.get(5)?;
    let converted_at: Option<i64> = row.get(6)?;
    Ok(VideoRedundancy {
        video: place.parsed(&key)?,
        title: row.get(1)?,
        created_at: UnixMillis(number(2)?),
        popularity: Popularity {
            score: row.get(3)?,
            at: UnixMillis(number(4)?),
        },
        pin: pin.map(|word| from_word(place, &word)).transpose()?,
        converted_at: converted_at
            .map(|ms| place.unsigned(ms).map(UnixMillis))
            .transpose()?,
        chunks: number(7)?,
        size_bytes: number(8)?,
        erasure_chunks: number(9)?,
        erasure_bytes: number(10)?,
    })
}

/// All committed chunks of active videos, those together that lie on the same nodes in the same mode. Parts that are known
/// to be lost do not count. Reads every row of the placements: for operators who ask, not for workers.
pub(crate) fn placed(connection: &Connection) -> Result<Vec<PlacedChunks>, MetaError> {
    let mut query = connection.prepare_cached(
        "WITH placed AS (
           SELECT c.video_id, c.kind = ?1 AS is_media, c.scheme, c.size_bytes,
             (SELECT group_concat(n.node_id ORDER BY n.node_id)
              FROM chunk_replicas r JOIN storage_nodes n ON n.node_url = r.node_url
              WHERE r.chunk_id = c.chunk_id AND r.status = 'active') AS nodes
           FROM chunks c JOIN videos v ON v.video_id = c.video_id WHERE v.status = 'active')
         SELECT video_id, is_media, scheme, coalesce(nodes, ''), count(*), sum(size_bytes) FROM placed
         GROUP BY video_id, is_media, scheme, nodes",
    )?;
    let mut found = query.query([ChunkKind::Media as u8])?;
    let mut placed = Vec::new();
    while let Some(row) = found.next()? {
        placed.push(placed_chunks(row)?);
    }
    Ok(placed)
}

fn placed_chunks(row: &SqlRow<'_>) -> Result<PlacedChunks, MetaError> {
    let (key, scheme, nodes): (String, String, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
    let place = Place {
        table: "chunks",
        key: &key,
    };
    let nodes = nodes.split(',').filter(|node| !node.is_empty());
    Ok(PlacedChunks {
        video: place.parsed(&key)?,
        is_media: row.get(1)?,
        scheme: from_word(place, &scheme)?,
        nodes: nodes.map(|node| place.parsed(node)).collect::<Result<_, _>>()?,
        chunks: place.unsigned(row.get(4)?)?,
        size_bytes: place.unsigned(row.get(5)?)?,
    })
}

/// A chunk that lacks parts or has some on nodes that may not answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AtRisk {
    pub record: ChunkRecord,
    /// Of its video.
    pub popularity: Popularity,
}

/// A page of the chunks that lack parts or have parts on `nodes`; those that may lack most first. Both schemes have two
/// parts to spare.
pub(crate) fn at_risk(
    connection: &mut Connection,
    nodes: &[NodeId],
    (offset, limit): (usize, usize),
) -> Result<Vec<AtRisk>, MetaError> {
    let snapshot = connection.transaction()?;
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    let mut query = snapshot.prepare_cached(
        "WITH doubtful AS (
           SELECT r.chunk_id, count(*) AS parts FROM chunk_replicas r
           WHERE r.status = 'active' AND r.node_url IN
             (SELECT node_url FROM storage_nodes WHERE node_id IN (SELECT value FROM json_each(?1)))
           GROUP BY r.chunk_id)
         SELECT c.chunk_id, v.views_recent, v.views_at
         FROM chunks c JOIN videos v ON v.video_id = c.video_id LEFT JOIN doubtful d ON d.chunk_id = c.chunk_id
         WHERE c.missing_parts > 0 OR d.parts > 0
         ORDER BY c.missing_parts + coalesce(d.parts, 0) DESC, c.chunk_id LIMIT ?2 OFFSET ?3",
    )?;
    let page = (json_column(&names), signed(limit as u64)?, signed(offset as u64)?);
    let rows = query.query_map(page, |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, f64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (key, score, at) = row?;
        let place = Place {
            table: "chunks",
            key: &key,
        };
        let chunk: ChunkId = place.parsed(&key)?;
        let at = UnixMillis(place.unsigned(at)?);
        if let Some(record) = find_chunk(&snapshot, chunk)? {
            found.push(AtRisk {
                record,
                popularity: Popularity { score, at },
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Params, StatementStatus};
    use uuid::Uuid;

    const CHUNKS_EACH: u32 = 20;

    fn id(number: u128) -> VideoId {
        VideoId(Uuid::from_u128(number))
    }

    /// A catalogue of so many active videos; each second one is pinned.
    fn library(videos: u128) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let connection = crate::schema::open_writer(&folder.path().join("catalogue.db")).unwrap();
        let all = connection.unchecked_transaction().unwrap();
        for number in 1..=videos {
            let video = id(number);
            let insert =
                "INSERT INTO videos(video_id, title, title_key, duration_sec, created_at, status, row_sum)
                VALUES (?1, '', '', 1.0, 0, 'active', 0)";
            all.execute(insert, [video.to_string()]).unwrap();
            if number % 2 == 0 {
                let pin = "INSERT INTO video_redundancy(video_id, pin) VALUES (?1, 'rep')";
                all.execute(pin, [video.to_string()]).unwrap();
            }
            for seq in 0..CHUNKS_EACH {
                let chunk = ChunkId::media(video, seq).to_string();
                let insert =
                    "INSERT INTO chunks(chunk_id, video_id, kind, track, sequence_num, size_bytes, checksum,
                      leaf_root, scheme, missing_parts, created_at, row_sum)
                    VALUES (?1, ?2, 1, 0, ?3, 100, '', '', 'rep', 0, 0, 0)";
                all.execute(insert, (chunk, video.to_string(), seq)).unwrap();
            }
        }
        all.commit().unwrap();
        connection.execute("ANALYZE", []).unwrap();
        (folder, connection)
    }

    /// Steps of SQLite's machine for one answer.
    fn steps(connection: &Connection, sql: &str, values: impl Params) -> i32 {
        let mut query = connection.prepare(sql).unwrap();
        let mut rows = query.query(values).unwrap();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        query.get_status(StatementStatus::VmStep)
    }

    /// What is asked for each chunk of a conversion, and for each look at a video, takes no longer in a large library.
    #[test]
    fn questions_about_one_video_take_as_many_steps_in_any_library() {
        let [small, large] = [5, 1_000].map(|videos| {
            let (_folder, connection) = library(videos);
            let key = id(4).to_string();
            let one = format!("{VIDEOS} AND v.video_id = ?2 GROUP BY v.video_id");
            let all = format!("{VIDEOS} GROUP BY v.video_id");
            let media = ChunkKind::Media as u8;
            [
                steps(&connection, PIN, [&key]),
                steps(&connection, &one, (media, &key)),
                steps(&connection, &all, [media]),
            ]
        });
        assert_eq!(small[..2], large[..2], "one video");
        assert!(small[0] < 100, "{small:?}");
        assert!(
            large[2] > 100 * small[2],
            "the whole library grows with it: {small:?}, {large:?}"
        );
    }

    #[test]
    fn a_pin_is_told_apart_from_no_pin_and_from_no_video() {
        let (_folder, connection) = library(2);
        let pin = |number| pin_of(&connection, id(number)).unwrap();
        assert_eq!(
            [pin(1), pin(2), pin(3)],
            [Some(None), Some(Some(Scheme::Replicated)), None]
        );
        let all = videos(&connection).unwrap();
        assert_eq!(video_of(&connection, id(2)).unwrap().as_ref(), all.get(1));
        assert_eq!(all[1].chunks, u64::from(CHUNKS_EACH));
        connection
            .execute("UPDATE videos SET status = 'deleted'", [])
            .unwrap();
        assert_eq!((pin(2), video_of(&connection, id(2)).unwrap()), (None, None));
    }
}
