//! Bugs that are put in on purpose: a harness that does not notice them proves nothing.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A node gives receipts for bytes that it has not synced.
    NothingIsSynced,
    /// Proposers count nodes that they never asked: COMMIT gets receipts that nobody gave.
    UnaskedNodesCount,
    /// The catalogue answers before its transactions are durable: the last of them go with its process.
    CatalogueForgets,
}

impl Mutant {
    pub const ALL: [Self; 3] = [
        Self::NothingIsSynced,
        Self::UnaskedNodesCount,
        Self::CatalogueForgets,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NothingIsSynced => "nothing-is-synced",
            Self::UnaskedNodesCount => "unasked-nodes-count",
            Self::CatalogueForgets => "catalogue-forgets",
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.as_str() == name)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
