//! What a client can be told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::policy::{Micros, SeedConfig};

/// Which scheduling policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// The documented base policy.
    #[default]
    Seed,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed => f.write_str("seed"),
        }
    }
}

/// A policy that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy \"{name}\"; there is: seed")]
pub struct UnknownPolicy {
    pub name: String,
}

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "seed" => Ok(Self::Seed),
            other => Err(UnknownPolicy {
                name: other.to_owned(),
            }),
        }
    }
}

/// How a client behaves. [`ClientConfig::new`] gives the figures of the base policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `http://host:port` of the metadata role.
    pub metadata_url: String,
    pub policy: PolicyName,
    /// Chunks fetched at the same time.
    pub max_downloads: usize,
    /// Filling the buffer stops when this much lies ahead.
    pub target_buffer_ms: u64,
    /// Filling starts again when less than this lies ahead.
    pub low_water_ms: u64,
    /// Names this client in its reports.
    pub client_id: Uuid,
}

impl ClientConfig {
    /// The base policy against the cluster whose metadata role listens at `metadata_url`.
    #[must_use]
    pub fn new(metadata_url: impl Into<String>) -> Self {
        let seed = SeedConfig::default();
        Self {
            metadata_url: metadata_url.into(),
            policy: PolicyName::Seed,
            max_downloads: seed.max_downloads,
            target_buffer_ms: seed.target.as_ms(),
            low_water_ms: seed.low_water.as_ms(),
            client_id: Uuid::new_v4(),
        }
    }

    pub(crate) fn seed(&self) -> SeedConfig {
        SeedConfig {
            max_downloads: self.max_downloads.max(1),
            target: Micros::from_ms(self.target_buffer_ms),
            low_water: Micros::from_ms(self.low_water_ms.min(self.target_buffer_ms)),
            ..SeedConfig::default()
        }
    }
}
