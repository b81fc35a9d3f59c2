//! Which cluster is meant, and which video.

use std::path::PathBuf;

use vstack_api::wire::{NodeEntry, VideoQuery};
use vstack_api::{ApiError, ErrorCode, MetadataClient};
use vstack_core::id::{NodeId, VideoId};
use vstack_core::node_name::label;
use vstack_server::dev::{ClusterState, DEFAULT_PORT_BASE};

use crate::args::Place;
use crate::failure::Failure;

/// Most videos that a title is looked for among.
const TITLE_MATCHES: u32 = 500;

/// Where `vstack dev` keeps its cluster unless told otherwise.
pub(crate) fn default_data() -> PathBuf {
    let share = home("XDG_DATA_HOME", ".local/share");
    share.unwrap_or_else(std::env::temp_dir).join("vstack/dev")
}

/// Where `vstack play` keeps what it has measured of nodes. Nowhere without a home: a guess is not worth a file that others
/// can put into a shared folder.
pub(crate) fn history_file() -> Option<PathBuf> {
    Some(home("XDG_CACHE_HOME", ".cache")?.join("vstack/nodes.json"))
}

/// The folder that `variable` names, else `below` the user's home.
fn home(variable: &str, below: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below)))
}

/// The metadata role's address: as given, else of the cluster that runs here, else where `vstack dev` would listen.
pub(crate) fn metadata_url(place: &Place) -> String {
    let given = place.metadata_url.clone();
    let here = || ClusterState::read(&default_data()).map(|state| state.cluster.metadata_url);
    given
        .or_else(here)
        .unwrap_or_else(|| format!("http://127.0.0.1:{DEFAULT_PORT_BASE}"))
}

pub(crate) fn catalogue(place: &Place) -> MetadataClient {
    MetadataClient::new(&metadata_url(place))
}

/// What nodes are called.
#[derive(Debug)]
pub(crate) struct Names(Vec<NodeEntry>);

impl Names {
    pub(crate) async fn read(catalogue: &MetadataClient) -> Result<Self, ApiError> {
        catalogue.nodes().await.map(Self)
    }

    pub(crate) fn of(&self, node: NodeId) -> String {
        let entry = self.0.iter().find(|entry| entry.node_id == node);
        label(entry.and_then(|entry| entry.name.as_deref()), node)
    }

    /// The node at this address.
    pub(crate) fn at(&self, url: &str) -> String {
        let entry = self.0.iter().find(|entry| entry.node_url == url);
        entry.map_or_else(|| "-".to_owned(), NodeEntry::label)
    }
}

/// The video with this id, or the only one with this title.
pub(crate) async fn find_video(catalogue: &MetadataClient, text: &str) -> Result<VideoId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let query = VideoQuery {
        search: Some(text.to_owned()),
        limit: Some(TITLE_MATCHES),
        ..VideoQuery::default()
    };
    let page = catalogue.videos(&query).await?;
    let mut matches = page.videos.iter().filter(|video| video.title == text);
    match (matches.next(), matches.next()) {
        (Some(video), None) => Ok(video.video_id),
        (None, _) => Err(Failure::problem(
            ErrorCode::VideoNotFound,
            format!("no video has the id or title \"{text}\"; `vstack video list` shows what is there"),
        )),
        (Some(_), Some(_)) => Err(Failure::problem(
            ErrorCode::Conflict,
            format!("several videos have the title \"{text}\"; name one by its id (`vstack video list`)"),
        )),
    }
}
