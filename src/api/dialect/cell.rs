//! One cell of a dialect's table.

use bytes::Bytes;
use http::StatusCode;

/// What a caller is answered, without the headers that all dialects share.
pub(super) struct Cell {
    pub(super) status: StatusCode,
    /// JSON text.
    pub(super) body: Bytes,
}
