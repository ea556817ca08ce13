//! What a decoder says of bytes that it cannot decode.

/// Why compressed bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are no valid stream of their kind.
    #[error("not a valid {0} stream")]
    Invalid(&'static str),
    /// The stream decodes to more or fewer bytes than expected.
    #[error("decodes to another length than the expected {expected} bytes")]
    WrongLength {
        /// Bytes expected.
        expected: usize,
    },
    /// The stream ends before its last block.
    #[error("is truncated")]
    Truncated,
    /// Members or frames without content follow each other without end.
    #[error("the {0} stream has more than {most} empty members in a row", most = crate::limits::MAX_EMPTY_MEMBERS)]
    Endless(&'static str),
}
