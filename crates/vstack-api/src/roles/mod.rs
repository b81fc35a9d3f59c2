//! A typed client for each role.

use std::time::Duration;

mod metadata;
mod storage;
mod uploader;

pub use metadata::MetadataClient;
pub use storage::{Pong, StorageClient};
pub use uploader::UploaderClient;

/// A call that only moves a little JSON. Generous: the catalogue may be syncing its disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
