//! What a reader is told when an operation fails.

use fuser::Errno;

use crate::error::ErrorKind;

/// The errno of an error. Content that is not what its digest says, and storage that fails, are
/// both EIO: the log says which.
pub(super) fn of(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::Usage => Errno::EINVAL,
        // Only an inode that the model does not have: to the kernel, a stale handle.
        ErrorKind::NotFound => Errno::ESTALE,
        ErrorKind::Malformed
        | ErrorKind::Corrupt
        | ErrorKind::PinMismatch
        | ErrorKind::Environment
        | ErrorKind::Refused => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_an_io_error_and_a_missing_inode_is_stale() {
        assert_eq!(of(ErrorKind::Corrupt), Errno::EIO);
        assert_eq!(of(ErrorKind::Environment), Errno::EIO);
        assert_eq!(of(ErrorKind::NotFound), Errno::ESTALE);
    }
}
