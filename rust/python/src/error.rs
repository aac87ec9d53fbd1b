//! The one place where verdicts of the engine become Python exceptions.

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use sealcast_core::credential::CredentialError;
use sealcast_core::policy::PolicyError;
use sealcast_core::validator::InvalidChain;
use sealcast_net::NetError;

pyo3::create_exception!(
    _core,
    ValidationError,
    PyValueError,
    "What was shown is not to be believed; see `reason`."
);
pyo3::create_exception!(
    _core,
    SendError,
    PyValueError,
    "A message or credential was not taken; see `reason`."
);
pyo3::create_exception!(
    _core,
    NetworkError,
    PyOSError,
    "A socket could not be had; see `reason`."
);

fn with_reason<E: pyo3::PyTypeInfo>(py: Python<'_>, reason: &str, text: String) -> PyErr {
    let error = PyErr::from_type(E::type_object(py), (text,));
    // A plain attribute cannot fail on a Python exception.
    let _ = error.value(py).setattr("reason", reason);
    error
}

pub(crate) fn invalid_chain(py: Python<'_>, error: &InvalidChain) -> PyErr {
    let reason = match error {
        InvalidChain::Other(_) => "other".to_owned(),
        named => named.to_string(),
    };
    with_reason::<ValidationError>(py, &reason, error.to_string())
}

pub(crate) fn invalid_credential(py: Python<'_>, error: &CredentialError) -> PyErr {
    match error {
        CredentialError::Chain(chain) => invalid_chain(py, chain),
        other => {
            let reason = other.to_string();
            with_reason::<ValidationError>(py, &reason, format!("stream credential: {reason}"))
        }
    }
}

pub(crate) fn malformed(py: Python<'_>, what: &str) -> PyErr {
    with_reason::<ValidationError>(py, "malformed", format!("{what} does not parse"))
}

pub(crate) fn unsigned(py: Python<'_>, what: &str) -> PyErr {
    let text = format!("{what} is not signed by who it says");
    with_reason::<ValidationError>(py, "signature", text)
}

pub(crate) fn invalid_policy(py: Python<'_>, error: PolicyError) -> PyErr {
    let (reason, text) = match error {
        PolicyError::Malformed => return malformed(py, "the policy"),
        PolicyError::Signature => return unsigned(py, "the policy"),
        PolicyError::Channel => ("name", "it is the policy of another site or channel"),
        PolicyError::Backwards => ("backwards", "the policy is older than the one that is known"),
        PolicyError::Stale => ("stale", "the policy is past its nextUpdate"),
    };
    with_reason::<ValidationError>(py, reason, text.to_owned())
}

pub(crate) fn invalid_anchors(py: Python<'_>) -> PyErr {
    let text = "a certificate does not parse, or a root is no CA that may sign certificates (keyUsage)";
    with_reason::<ValidationError>(py, "malformed", text.to_owned())
}

pub(crate) fn not_sent(py: Python<'_>, error: sealcast_core::sender::SendError) -> PyErr {
    use sealcast_core::sender::SendError as E;
    let (reason, text) = match error {
        E::TooLong { limit } => ("too-long", format!("the message is longer than {limit} bytes")),
        E::TopicTooLong { limit } => (
            "topic-too-long",
            format!("the topic is longer than {limit} bytes"),
        ),
        E::QueueFull => ("queue-full", "the queue of messages is full".to_owned()),
        E::Ended => ("ended", "the stream has ended".to_owned()),
        E::Exhausted => ("exhausted", "the stream has used up its numbers".to_owned()),
    };
    with_reason::<SendError>(py, reason, text)
}

pub(crate) fn credential_not_taken(py: Python<'_>, error: &sealcast_core::sender::UnfitCredential) -> PyErr {
    use sealcast_core::sender::UnfitCredential as E;
    let reason = match error {
        E::TooLong { .. } => "credential-too-long",
        E::MtuTooSmall { .. } => "mtu-too-small",
    };
    with_reason::<SendError>(py, reason, error.to_string())
}

pub(crate) fn no_socket(py: Python<'_>, error: &NetError) -> PyErr {
    let reason = match error {
        NetError::UnknownInterface { .. } => "unknown-interface",
        NetError::InterfaceDown { .. } => "interface-down",
        NetError::InterfaceWithoutMulticast { .. } => "interface-without-multicast",
        NetError::InterfaceWithoutAddress { .. } => "interface-without-address",
        NetError::NotMulticast { .. } => "not-multicast",
        NetError::NotASource { .. } => "not-a-source",
        NetError::NoPort { .. } => "no-port",
        NetError::MtuAboveInterface { .. } => "mtu-above-interface",
        NetError::AddressInUse { .. } => "address-in-use",
        NetError::AddressNotHere { .. } => "address-not-here",
        NetError::TooManyGroups { .. } => "too-many-groups",
        NetError::PermissionDenied { .. } => "permission-denied",
        _ => "system",
    };
    with_reason::<NetworkError>(py, reason, error.to_string())
}
