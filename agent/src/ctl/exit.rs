//! Exit codes of `grantd` and `grantctl`, after `sysexits.h`. Documented in `docs/commands.md`.

use std::process::ExitCode;

use super::protocol::ErrorCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the answer is yes.
    Ok = 0,
    /// The question was answered, and the answer is no: not enforcing, nothing matched.
    Negative = 1,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The config file, or other input, is wrong (`EX_DATAERR`).
    Data = 65,
    /// A file that was named does not exist or cannot be read (`EX_NOINPUT`).
    NoInput = 66,
    /// The account that was named does not exist or may not be used (`EX_NOUSER`).
    NoUser = 67,
    /// The daemon, or a kernel feature, is not available (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A defect (`EX_SOFTWARE`).
    Internal = 70,
    /// The operating system refused something that should work (`EX_OSERR`).
    Os = 71,
    /// Reading or writing failed (`EX_IOERR`).
    Io = 74,
    /// Cannot be done just now; the same command may work later (`EX_TEMPFAIL`).
    TryAgain = 75,
    /// The other side broke the protocol or speaks another version (`EX_PROTOCOL`).
    Protocol = 76,
    /// The caller may not do this (`EX_NOPERM`).
    Permission = 77,
    /// `grantctl run`: the command was found but could not be started (as shells do).
    CannotExecute = 126,
    /// `grantctl run`: the command was not found (as shells do).
    CommandNotFound = 127,
}

impl Exit {
    /// The number that the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            // Shapes are this client's affair, so it is a name or an id that cannot be one.
            ErrorCode::BadRequest => Self::Usage,
            ErrorCode::Internal => Self::Internal,
            ErrorCode::Version => Self::Protocol,
            ErrorCode::NotPermitted => Self::Permission,
            ErrorCode::NotFound => Self::Negative,
            ErrorCode::Busy => Self::TryAgain,
            ErrorCode::InvalidConfig => Self::Data,
            ErrorCode::LedgerFailed => Self::Io,
            ErrorCode::KernelFailed => Self::Os,
        }
    }
}
