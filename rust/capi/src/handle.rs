//! Handles: numbers that lead to what a host has made, and to nothing else.
//!
//! A handle looks like a pointer to C, so that the compiler tells one kind from another, and is none: it is never
//! dereferenced. One that was freed, twice or long ago, or that is of another kind, is not found.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use crate::status::{Failure, Outcome, SealcastStatus};

#[derive(Default)]
struct Table {
    entries: HashMap<usize, Arc<dyn Any + Send + Sync>>,
    last: usize,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

/// Odd, so that it is no address of anything in the host, and far from small numbers.
const FIRST: usize = 0x5ea1;

/// Something that has a handle; `NAME` is for error messages.
pub(crate) trait Handled: Any + Send + Sync {
    const NAME: &'static str;
}

/// Makes a handle for `what`.
pub(crate) fn put<T: Handled>(what: T) -> usize {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    loop {
        // A number comes again only after all others of its width.
        table.last = table.last.wrapping_add(2);
        let handle = table.last ^ FIRST;
        if handle != 0 && !table.entries.contains_key(&handle) {
            table.entries.insert(handle, Arc::new(what));
            return handle;
        }
    }
}

/// What a handle leads to; it lives on for as long as a call uses it.
pub(crate) fn get<T: Handled>(handle: usize) -> Outcome<Arc<T>> {
    if handle == 0 {
        return Err(Failure::null(T::NAME));
    }
    let found = {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table.entries.get(&handle).cloned()
    };
    found
        .and_then(|entry| entry.downcast::<T>().ok())
        .ok_or_else(|| unknown::<T>(handle))
}

/// Takes a handle out of the table; nobody finds it any more.
pub(crate) fn take<T: Handled>(handle: usize) -> Outcome<Arc<T>> {
    let found = get::<T>(handle)?;
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    // Of two that free at once, one is too late.
    match table.entries.remove(&handle) {
        Some(_) => Ok(found),
        None => Err(unknown::<T>(handle)),
    }
}

fn unknown<T: Handled>(handle: usize) -> Failure {
    let text = format!(
        "{handle:#x} is no {}: it has been freed, or is of another kind",
        T::NAME
    );
    Failure::new(SealcastStatus::InvalidHandle, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Apple;
    impl Handled for Apple {
        const NAME: &'static str = "an apple";
    }
    #[derive(Debug)]
    struct Pear;
    impl Handled for Pear {
        const NAME: &'static str = "a pear";
    }

    #[test]
    fn a_handle_leads_to_its_own_kind_until_it_is_freed() {
        let handle = put(Apple);
        assert!(get::<Apple>(handle).is_ok());
        assert_eq!(
            get::<Pear>(handle).unwrap_err().status,
            SealcastStatus::InvalidHandle
        );
        assert!(take::<Apple>(handle).is_ok());
        assert_eq!(
            get::<Apple>(handle).unwrap_err().status,
            SealcastStatus::InvalidHandle
        );
        assert_eq!(
            take::<Apple>(handle).unwrap_err().status,
            SealcastStatus::InvalidHandle
        );
        assert_eq!(get::<Apple>(0).unwrap_err().status, SealcastStatus::NullArgument);
        assert_ne!(put(Apple), handle);
    }
}
