//! Why a source gave no section.

use http::StatusCode;

use crate::directory::DirectoryError;
use crate::outgoing::{InvalidPath, OutgoingError};
use crate::telemetry::with_causes;

/// Why a source gave no section.
#[derive(Debug, thiserror::Error)]
pub(super) enum SectionError {
    #[error("it took too long")]
    TimedOut,
    #[error("there is no document, and nothing that would make one")]
    Absent,
    #[error("the application answered {0}")]
    Status(StatusCode),
    #[error("the application cannot be asked")]
    Request(#[source] OutgoingError),
    #[error(transparent)]
    Path(#[from] InvalidPath),
    #[error("no section asks the application")]
    NoApplication,
    #[error("the answer is not a JSON object without repeated keys")]
    NotAnObject,
    #[error("the making of the document was interrupted")]
    Interrupted,
    #[error("the directory failed")]
    Directory(DirectoryError),
}

impl SectionError {
    /// Returns what went wrong, for the log, without any text from a source.
    pub(super) fn for_log(&self) -> String {
        match self {
            Self::Directory(error) => error.without_values(),
            other => with_causes(other),
        }
    }
}

impl From<OutgoingError> for SectionError {
    fn from(error: OutgoingError) -> Self {
        if let OutgoingError::TimedOut(_) = error { Self::TimedOut } else { Self::Request(error) }
    }
}

impl From<DirectoryError> for SectionError {
    fn from(error: DirectoryError) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Directory(error) }
    }
}
