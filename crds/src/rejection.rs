/// The reason why an object is not accepted, or why a server does not fit a
/// service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// A condition's reason: one of the consts of [`crate::condition::reason`].
    pub reason: &'static str,
    /// A sentence that names the field and any conflicting object, and says
    /// what to write instead.
    pub message: String,
}
