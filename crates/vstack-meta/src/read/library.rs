//! The library: search, order, pages.

use rusqlite::{Connection, ToSql, named_params};
use vstack_core::id::{ChunkKind, VideoId};
use vstack_core::limits::VIEW_HALF_LIFE_MS;
use vstack_core::time::UnixMillis;

use super::videos::{VideoRecord, find_video};
use crate::codec::{Place, signed};
use crate::error::MetaError;

/// Order of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LibraryOrder {
    #[default]
    Newest,
    Title,
    Duration,
    /// Most watched lately first: views decay.
    Views,
}

/// What part of the library is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryQuery {
    /// Part of the title, in any case; empty finds all.
    pub search: String,
    pub order: LibraryOrder,
    pub offset: u64,
    pub limit: u32,
    /// For the order by views.
    pub now: UnixMillis,
    pub half_life_ms: u64,
}

impl Default for LibraryQuery {
    fn default() -> Self {
        Self {
            search: String::new(),
            order: LibraryOrder::default(),
            offset: 0,
            limit: 0,
            now: UnixMillis::default(),
            half_life_ms: VIEW_HALF_LIFE_MS,
        }
    }
}

/// A video with the totals over its chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    pub video: VideoRecord,
    /// Committed media chunks of the main track.
    pub media_chunks: u32,
    /// Sum over all chunks, each counted once; catalogue objects are not the video's.
    pub size_bytes: u64,
    pub has_poster: bool,
    /// Chunks with fewer live parts than their scheme wants.
    pub under_replicated: u32,
    /// Whether every chunk is erasure-coded, and there is one.
    pub erasure: bool,
}

/// A page of the library.
#[derive(Debug, Clone, PartialEq)]
pub struct LibraryPage {
    pub videos: Vec<Library>,
    /// Matches on all pages.
    pub total: u64,
}

const fn order_sql(order: LibraryOrder) -> &'static str {
    match order {
        LibraryOrder::Newest => "created_at DESC, video_id",
        LibraryOrder::Title => "title_key, video_id",
        LibraryOrder::Duration => "duration_sec DESC, video_id",
        LibraryOrder::Views => "decayed(views_recent, views_at, :now, :half_life) DESC, views DESC, video_id",
    }
}

/// A page; deleted videos are in none.
pub(crate) fn page(connection: &mut Connection, query: &LibraryQuery) -> Result<LibraryPage, MetaError> {
    let snapshot = connection.transaction()?;
    let search = query.search.to_lowercase();
    const MATCHES: &str = "status <> 'deleted' AND (:search = '' OR instr(title_key, :search) > 0)";
    let total: i64 = snapshot.query_row(
        &format!("SELECT count(*) FROM videos WHERE {MATCHES}"),
        named_params! {":search": search},
        |row| row.get(0),
    )?;
    let sql = format!(
        "SELECT video_id FROM videos WHERE {MATCHES} ORDER BY {} LIMIT :limit OFFSET :offset",
        order_sql(query.order)
    );
    let mut statement = snapshot.prepare_cached(&sql)?;
    // An offset past every video is an empty page, not an error.
    let offset = i64::try_from(query.offset).unwrap_or(i64::MAX);
    let mut page: Vec<(&str, &dyn ToSql)> = named_params! {
        ":search": search, ":limit": query.limit, ":offset": offset
    }
    .to_vec();
    let (now, half_life) = (signed(query.now.0)?, signed(query.half_life_ms)?);
    if query.order == LibraryOrder::Views {
        page.extend_from_slice(named_params! {":now": now, ":half_life": half_life});
    }
    let ids: Vec<String> = statement
        .query_map(page.as_slice(), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let found = ids.iter().map(|id| {
        let video = Place {
            table: "videos",
            key: id,
        }
        .parsed(id)?;
        entry(&snapshot, video)?.ok_or(MetaError::VideoNotFound { video })
    });
    let videos = found.collect::<Result<_, _>>()?;
    Ok(LibraryPage {
        videos,
        total: Place {
            table: "videos",
            key: "",
        }
        .unsigned(total)?,
    })
}

/// One video of the library, deleted or not.
pub(crate) fn entry(connection: &Connection, video: VideoId) -> Result<Option<Library>, MetaError> {
    let Some(record) = find_video(connection, video)? else {
        return Ok(None);
    };
    let key = video.to_string();
    let place = Place {
        table: "chunks",
        key: &key,
    };
    let totals = connection
        .prepare_cached(
            "SELECT coalesce(sum(size_bytes), 0), coalesce(sum(missing_parts > 0), 0),
               coalesce(min(scheme <> 'rep'), 0) FROM chunks WHERE video_id = ?1 AND kind <> ?2",
        )?
        .query_row((&key, ChunkKind::Catalogue as u8), |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, bool>(2)?,
            ))
        })?;
    let (size_bytes, under_replicated, erasure) = totals;
    let media: i64 = count_kind(connection, &key, ChunkKind::Media)?;
    Ok(Some(Library {
        video: record,
        media_chunks: place.small(media)?,
        size_bytes: place.unsigned(size_bytes)?,
        has_poster: count_kind(connection, &key, ChunkKind::Poster)? > 0,
        under_replicated: place.small(under_replicated)?,
        erasure,
    }))
}

fn count_kind(connection: &Connection, video: &str, kind: ChunkKind) -> Result<i64, MetaError> {
    let mut query = connection
        .prepare_cached("SELECT count(*) FROM chunks WHERE video_id = ?1 AND kind = ?2 AND track = 0")?;
    Ok(query.query_row((video, kind as u8), |row| row.get(0))?)
}
