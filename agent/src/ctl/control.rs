//! What is behind the socket.

use super::{
    peer::Caller,
    protocol::{
        CtlError, Enrolled, GrantPage, GrantView, Reloaded, Request, RevokeSelector, Revoked,
        Status,
    },
};

/// What the socket controls: answered by whoever owns the state.
///
/// Callers have been authorised before a method is called. A method that changes something answers
/// only once the change is in force; it runs to its end also when its caller has left.
pub trait Control: Send + Sync + 'static {
    /// Answers [`Request::Status`].
    fn status(&self) -> impl Future<Output = Result<Status, CtlError>> + Send;
    /// Up to `limit` live grants whose ids are after `after`, ordered by id.
    fn grants(
        &self,
        workload: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<GrantPage, CtlError>> + Send;
    /// Answers [`Request::GrantShow`].
    fn grant(&self, id: String) -> impl Future<Output = Result<GrantView, CtlError>> + Send;
    /// Answers [`Request::Revoke`].
    fn revoke(
        &self,
        caller: Caller,
        selector: RevokeSelector,
    ) -> impl Future<Output = Result<Revoked, CtlError>> + Send;
    /// Answers [`Request::Freeze`].
    fn freeze(&self, caller: Caller) -> impl Future<Output = Result<(), CtlError>> + Send;
    /// Answers [`Request::Thaw`].
    fn thaw(&self, caller: Caller) -> impl Future<Output = Result<(), CtlError>> + Send;
    /// Answers [`Request::Enrol`].
    fn enrol(
        &self,
        caller: Caller,
        workload: String,
    ) -> impl Future<Output = Result<Enrolled, CtlError>> + Send;
    /// Answers [`Request::Reload`].
    fn reload(&self, caller: Caller) -> impl Future<Output = Result<Reloaded, CtlError>> + Send;
    /// A caller was refused: at once, or when it asked for `request`. For the audit stream.
    fn refused(&self, caller: &Caller, request: Option<&Request>, why: &str);
}
