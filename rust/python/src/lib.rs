//! The extension module `sealcast._core`: the only crate that knows PyO3.

use pyo3::prelude::*;

mod error;
mod member;
mod output;
mod publisher;
mod subscriber;
mod trust;

/// The engine, in Rust: what runs per packet, and what must be the same in every language.
#[pymodule]
mod _core {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_export]
    use super::error::{NetworkError, SendError, ValidationError};
    #[pymodule_export]
    use super::member::{Presence, later_signed_time, list_interfaces, steady_time};
    #[pymodule_export]
    use super::output::{PyCommand, PyMessage};
    #[pymodule_export]
    use super::publisher::{PySendDriver, SendEngine};
    #[pymodule_export]
    use super::subscriber::{PyReceiveDriver, ReceiveEngine};
    #[pymodule_export]
    use super::trust::{
        ControlStream, PeerIdentity, PyValidator, PyVerifiedCredential, channel_id, commit_generation,
        commit_slot, count_crls, gate_keys, judge_crls, parse_heartbeat, step_secret, verify_policy,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
