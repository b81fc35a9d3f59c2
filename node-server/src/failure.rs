//! Why a command did not do what was asked, what to do next, and the exit code that says so.

use vstack_api::{ApiError, ErrorCode, Problem};
use vstack_client::ClientError;
use vstack_media::MediaError;
use vstack_server::StartError;
use vstack_server::dev::DevError;
use vstack_server::metadata::OfflineError;

/// How a command ended that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Refused or failed: exit code 1.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Wrong arguments or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A role or a cluster that cannot start: exit code 3.
    #[error("{0}")]
    CannotStart(String),
}

impl Failure {
    pub(crate) fn problem(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Problem(Box::new(Problem::new(code, detail)))
    }

    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Problem(_) => 1,
            Self::Usage(_) => 2,
            Self::CannotStart(_) => 3,
        }
    }

    /// The form that `--json` prints.
    pub(crate) fn as_problem(&self) -> Problem {
        match self {
            Self::Problem(problem) => (**problem).clone(),
            Self::Usage(detail) => Problem::new(ErrorCode::BadRequest, detail.clone()),
            Self::CannotStart(detail) => Problem::new(ErrorCode::Unavailable, detail.clone()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let unreachable = !matches!(error, ApiError::Refused(_));
        let mut problem = error.into_problem();
        if unreachable {
            problem
                .detail
                .push_str(". Is the cluster running? `vstack dev` starts one; --metadata-url names another");
        }
        problem.into()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Catalogue(error) => error.into(),
            other => Self::problem(other.code(), other.to_string()),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::CannotStart(error.to_string())
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Folder(error) => error.into(),
            OfflineError::Catalogue(error) => Self::problem(ErrorCode::MetadataCorrupt, error.to_string()),
            OfflineError::NoNode { .. } => Self::problem(ErrorCode::Unreachable, error.to_string()),
        }
    }
}

impl From<DevError> for Failure {
    fn from(error: DevError) -> Self {
        Self::CannotStart(error.to_string())
    }
}

impl From<MediaError> for Failure {
    fn from(error: MediaError) -> Self {
        Self::problem(ErrorCode::FfmpegFailed, error.to_string())
    }
}
