//! What a client can be told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::policy::prefetch::PrefetchConfig;
use crate::policy::{Choice, Micros, PolicyConfig, PoolConfig, SeedConfig};

/// Which scheduling policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// The documented base policy.
    Seed,
    /// Ranges of a chunk from several nodes at once.
    #[default]
    Pool,
    /// To compare with: each chunk from the next replica in turn.
    RoundRobin,
    /// To compare with: each chunk from a replica drawn by lot.
    Random,
    /// To compare with: everything from the first replica while it works.
    Single,
}

impl PolicyName {
    pub const ALL: [Self; 5] = [
        Self::Seed,
        Self::Pool,
        Self::RoundRobin,
        Self::Random,
        Self::Single,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Pool => "pool",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Single => "single",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy \"{name}\"; there are: seed, pool, round-robin, random, single")]
pub struct UnknownPolicy {
    pub name: String,
}

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
        known.ok_or_else(|| UnknownPolicy {
            name: text.to_owned(),
        })
    }
}

/// How a client behaves. [`ClientConfig::new`] gives what ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `http://host:port` of the metadata role.
    pub metadata_url: String,
    /// Of sessions, until [`Cluster::set_policy`](crate::Cluster::set_policy) names another.
    pub policy: PolicyName,
    /// Whole chunks fetched at the same time; the pooled policy has a limit for each node instead.
    pub max_downloads: usize,
    /// Filling the buffer stops when this much lies ahead.
    pub target_buffer_ms: u64,
    /// Filling starts again when less than this lies ahead; the pooled policy has a mark of its own.
    pub low_water_ms: u64,
    /// Where what was measured of nodes is kept between runs, if anywhere.
    pub history_file: Option<PathBuf>,
    /// What may lie ready that was fetched before anybody asked for it, for all sessions together; 0 fetches nothing in
    /// advance.
    pub prefetch_budget_bytes: u64,
    /// Names this client in its reports.
    pub client_id: Uuid,
}

impl ClientConfig {
    /// The pooled policy with the figures of the base policy, against the cluster whose metadata role listens at `metadata_url`.
    #[must_use]
    pub fn new(metadata_url: impl Into<String>) -> Self {
        let seed = SeedConfig::default();
        Self {
            metadata_url: metadata_url.into(),
            policy: PolicyName::default(),
            max_downloads: seed.max_downloads,
            target_buffer_ms: seed.target.as_ms(),
            low_water_ms: seed.low_water.as_ms(),
            history_file: None,
            prefetch_budget_bytes: PrefetchConfig::default().budget_bytes,
            client_id: Uuid::new_v4(),
        }
    }

    /// The figures of the policy that it names.
    #[must_use]
    pub fn policy_config(&self) -> PolicyConfig {
        self.policy_config_of(self.policy)
    }

    pub(crate) fn policy_config_of(&self, policy: PolicyName) -> PolicyConfig {
        match policy {
            PolicyName::Pool => PolicyConfig::Pool(self.pool()),
            PolicyName::Seed | PolicyName::RoundRobin | PolicyName::Random | PolicyName::Single => {
                PolicyConfig::Seed(self.seed(policy))
            }
        }
    }

    pub(crate) fn prefetch(&self) -> PrefetchConfig {
        PrefetchConfig {
            budget_bytes: self.prefetch_budget_bytes,
            ..PrefetchConfig::default()
        }
    }

    fn pool(&self) -> PoolConfig {
        let target = Micros::from_ms(self.target_buffer_ms);
        let pool = PoolConfig::default();
        PoolConfig {
            target,
            low_water: pool.low_water.min(target),
            ..pool
        }
    }

    /// Of the policies that take whole chunks; a chunk outside a session is fetched whole under every policy.
    pub(crate) fn seed(&self, policy: PolicyName) -> SeedConfig {
        let choice = match policy {
            PolicyName::Seed | PolicyName::Pool => Choice::Score,
            PolicyName::RoundRobin => Choice::RoundRobin,
            PolicyName::Random => Choice::Random {
                seed: self.client_id.as_u64_pair().0,
            },
            PolicyName::Single => Choice::Single,
        };
        SeedConfig {
            choice,
            max_downloads: self.max_downloads.max(1),
            target: Micros::from_ms(self.target_buffer_ms),
            low_water: Micros::from_ms(self.low_water_ms.min(self.target_buffer_ms)),
            ..SeedConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_refused_with_the_list() {
        for name in PolicyName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
        let unknown = "fastest".parse::<PolicyName>().unwrap_err();
        let list = PolicyName::ALL.map(PolicyName::as_str).join(", ");
        assert!(unknown.to_string().ends_with(&list), "{unknown}");
    }
}
