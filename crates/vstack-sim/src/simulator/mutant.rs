//! Bugs to seed: a simulator that does not find them finds nothing.

use std::fmt;
use std::str::FromStr;

/// One mistake in the wiring around the protocol's core. Each breaks one of the rules R1 to R5, a ruling, or what a
/// disk promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A node answers ACCEPT before the bytes are synced (R4).
    ReceiptBeforeSync,
    /// A node starts up without comparing checksums, and takes a torn write for an object.
    TornWriteTrusted,
    /// The catalogue answers COMMIT before the row is synced.
    CommitBeforeSync,
    /// The generation stays the same when the catalogue starts again or is restored.
    GenerationNotRaised,
    /// A restored catalogue takes the next generation after its backup's and the nodes', and no more.
    RestoreRaisesByOne,
    /// A ballot that is open in a backup can be committed after the restore.
    OpenBallotsSurviveRestore,
    /// Objects of an open ballot are deleted when its lease ends, without a newer ballot (R3).
    CollectWithoutFence,
    /// Orders to delete go out before the OPEN that made them is synced (R3).
    OrdersBeforeSync,
    /// A conversion deletes what it is to replace when it opens, not when it commits (R3).
    ReplacedBeforeCommit,
    /// COMMIT takes receipts of a disk that was replaced since (R2).
    IncarnationUnchecked,
    /// ADOPT gives a receipt and does not name the object under the new ballot (R2).
    AdoptWithoutRetag,
    /// COMMIT accepts a ballot that a newer one has overtaken (R1).
    OldBallotCommits,
    /// A node keeps one object a chunk: a newer ballot overwrites the older one (R5).
    OneObjectPerChunk,
    /// An order to delete one ballot deletes the earlier ones too.
    DeletesEarlierBallots,
    /// After a restore, objects that the catalogue does not know are deleted at once.
    UnknownCollected,
}

impl Mutant {
    pub const ALL: [Self; 15] = [
        Self::ReceiptBeforeSync,
        Self::TornWriteTrusted,
        Self::CommitBeforeSync,
        Self::GenerationNotRaised,
        Self::RestoreRaisesByOne,
        Self::OpenBallotsSurviveRestore,
        Self::CollectWithoutFence,
        Self::OrdersBeforeSync,
        Self::ReplacedBeforeCommit,
        Self::IncarnationUnchecked,
        Self::AdoptWithoutRetag,
        Self::OldBallotCommits,
        Self::OneObjectPerChunk,
        Self::DeletesEarlierBallots,
        Self::UnknownCollected,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReceiptBeforeSync => "receipt-before-sync",
            Self::TornWriteTrusted => "torn-write-trusted",
            Self::CommitBeforeSync => "commit-before-sync",
            Self::GenerationNotRaised => "generation-not-raised",
            Self::RestoreRaisesByOne => "restore-raises-by-one",
            Self::OpenBallotsSurviveRestore => "open-ballots-survive-restore",
            Self::CollectWithoutFence => "collect-without-fence",
            Self::OrdersBeforeSync => "orders-before-sync",
            Self::ReplacedBeforeCommit => "replaced-before-commit",
            Self::IncarnationUnchecked => "incarnation-unchecked",
            Self::AdoptWithoutRetag => "adopt-without-retag",
            Self::OldBallotCommits => "old-ballot-commits",
            Self::OneObjectPerChunk => "one-object-per-chunk",
            Self::DeletesEarlierBallots => "deletes-earlier-ballots",
            Self::UnknownCollected => "unknown-collected",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mutant has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no mutant is called {0:?}")]
pub struct UnknownMutant(String);

impl FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|mutant| mutant.name() == text);
        named.ok_or_else(|| UnknownMutant(text.to_owned()))
    }
}
