//! The extension module `sealcast._core`: the only crate that knows PyO3.

use pyo3::prelude::*;

/// The engine, in Rust: what runs per packet, and what must be the same in every language.
#[pymodule]
mod _core {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
