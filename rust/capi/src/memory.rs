//! Memory of the host: what is read from it and written to it. All `unsafe` but that of the functions' own signatures is here.

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::mem::MaybeUninit;

use crate::status::{Failure, Outcome, SealcastStatus};

/// Bytes of the host, only looked at during a call. NULL with a length of 0 is empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastBytes {
    /// The first of them.
    pub data: *const u8,
    /// How many.
    pub length: usize,
}

impl SealcastBytes {
    /// # Safety
    /// `data` is valid for reads of `length` bytes for as long as the result is used.
    pub(crate) unsafe fn get<'a>(self, name: &str) -> Outcome<&'a [u8]> {
        // SAFETY: as this function's own.
        unsafe { bytes(self.data, self.length, name) }
    }
}

/// # Safety
/// `data` is valid for reads of `length` bytes for as long as the result is used.
pub(crate) unsafe fn bytes<'a>(data: *const u8, length: usize, name: &str) -> Outcome<&'a [u8]> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::null(name));
    }
    if length > isize::MAX as usize {
        return Err(Failure::invalid(format!("{name} cannot have {length} bytes")));
    }
    // SAFETY: not NULL, and the caller vouches for its length.
    Ok(unsafe { std::slice::from_raw_parts(data, length) })
}

/// # Safety
/// `items` is valid for reads of `count` items for as long as the result is used.
pub(crate) unsafe fn list<'a, T>(items: *const T, count: usize, name: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(Failure::null(name));
    }
    if !items.is_aligned() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::invalid(format!("{name} is no array of {count}")));
    }
    // SAFETY: not NULL, aligned, and the caller vouches for its length.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// # Safety
/// `text` is NULL or a NUL-terminated string that lives as long as the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Outcome<&'a str> {
    // SAFETY: as this function's own.
    unsafe { optional_text(text, name) }?.ok_or_else(|| Failure::null(name))
}

/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(text: *const c_char, name: &str) -> Outcome<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the caller vouches for its end.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text
        .to_str()
        .map_err(|_| Failure::new(SealcastStatus::InvalidText, format!("{name} is no UTF-8")))?;
    Ok(Some(text))
}

/// A struct of options, whose first field is its size as the host's header has it.
///
/// # Safety
/// `repr(C)`, its first field a `usize`, and every pattern of bits a value.
pub(crate) unsafe trait Options: Copy {
    const NAME: &'static str;
    fn default_values() -> Self;
}

/// Reads options: a host of an earlier version knows fewer fields, and has the defaults of the others. One of a later version
/// may leave at zero what this library does not know.
///
/// # Safety
/// `options` is NULL or valid for reads of as many bytes as its first field says.
pub(crate) unsafe fn options<T: Options>(options: *const T) -> Outcome<T> {
    let mut values = T::default_values();
    if options.is_null() {
        return Ok(values);
    }
    if !options.is_aligned() {
        return Err(Failure::invalid(format!("{} is not aligned", T::NAME)));
    }
    // SAFETY: not NULL, aligned, and a `usize` stands first.
    let size = unsafe { options.cast::<usize>().read() };
    check_options_size::<T>(size)?;
    // SAFETY: the host says that it has as many.
    let given = unsafe { std::slice::from_raw_parts(options.cast::<u8>(), size) };
    let known = size.min(size_of::<T>());
    if given[known..].iter().any(|&byte| byte != 0) {
        return Err(wrong_size::<T>(size, T::NAME));
    }
    // SAFETY: both have `known` bytes, and every pattern is a value.
    unsafe { std::ptr::copy_nonoverlapping(given.as_ptr(), (&raw mut values).cast::<u8>(), known) };
    Ok(values)
}

/// Writes the default options into what the host's header takes for the struct, be it shorter or longer than ours.
///
/// # Safety
/// `options` is NULL or valid for a write of `size` bytes.
pub(crate) unsafe fn init_options<T: Options>(options: *mut T, size: usize) -> Outcome<()> {
    check_options_size::<T>(size)?;
    needs(options, "options")?;
    if !options.is_aligned() {
        return Err(Failure::invalid(format!("{} is not aligned", T::NAME)));
    }
    let values = T::default_values();
    // SAFETY: bytes that may be padding are looked at as such.
    let ours =
        unsafe { std::slice::from_raw_parts((&raw const values).cast::<MaybeUninit<u8>>(), size_of::<T>()) };
    // SAFETY: the host says that it has `size` bytes.
    let theirs = unsafe { std::slice::from_raw_parts_mut(options.cast::<MaybeUninit<u8>>(), size) };
    let known = size.min(ours.len());
    theirs[..known].copy_from_slice(&ours[..known]);
    theirs[known..].fill(MaybeUninit::new(0));
    for (to, from) in theirs.iter_mut().zip(size.to_ne_bytes()) {
        *to = MaybeUninit::new(from);
    }
    Ok(())
}

/// Whether the struct of some version of the interface may have as many bytes.
fn check_options_size<T: Options>(size: usize) -> Outcome<()> {
    if (size_of::<usize>() * 2..=4096).contains(&size) && size.is_multiple_of(align_of::<T>()) {
        return Ok(());
    }
    Err(wrong_size::<T>(size, T::NAME))
}

/// Checks a number of an option.
pub(crate) fn in_range<T: Copy + PartialOrd + Display>(
    name: &str,
    value: T,
    least: T,
    most: T,
) -> Outcome<T> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Failure::invalid(format!("{name} is {value}: {least} to {most}")))
}

/// Checks what a host takes the size of a result for: results do not grow within a version of the interface.
pub(crate) fn check_size<T>(given: usize, name: &str) -> Outcome<()> {
    if given == size_of::<T>() {
        return Ok(());
    }
    Err(wrong_size::<T>(given, name))
}

fn wrong_size<T>(given: usize, name: &str) -> Failure {
    let text = format!("a {name} of {given} bytes: this library has {}", size_of::<T>());
    Failure::new(SealcastStatus::WrongSize, text)
}

/// Writes one value for the host.
///
/// # Safety
/// `out` is NULL or valid for a write.
pub(crate) unsafe fn write<T>(out: *mut T, value: T, name: &str) -> Outcome<()> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    if !out.is_aligned() {
        return Err(Failure::invalid(format!("{name} is not aligned")));
    }
    // SAFETY: not NULL, aligned, and the caller vouches for the rest.
    unsafe { out.write(value) };
    Ok(())
}

/// Fails where a result has no place to go to, before anything is done for it.
pub(crate) fn needs<T>(out: *mut T, name: &str) -> Outcome<()> {
    if out.is_null() {
        return Err(Failure::null(name));
    }
    Ok(())
}

/// A buffer of the host that fills up from its beginning; what was written has its place there.
pub(crate) struct Buffer {
    start: *mut u8,
    capacity: usize,
    used: usize,
}

impl Buffer {
    /// # Safety
    /// `start` is NULL or valid for writes of `capacity` bytes for as long as this is used.
    pub(crate) unsafe fn new(start: *mut u8, capacity: usize) -> Outcome<Self> {
        if start.is_null() && capacity > 0 {
            return Err(Failure::null("buffer"));
        }
        Ok(Self {
            start,
            capacity,
            used: 0,
        })
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity - self.used
    }

    /// Copies bytes in and says where they are; `None`: there is no room.
    pub(crate) fn put(&mut self, data: &[u8]) -> Option<*const u8> {
        if data.len() > self.room() {
            return None;
        }
        // The buffer may be NULL, and of no bytes.
        let place = self.start.wrapping_add(self.used);
        if data.is_empty() {
            return Some(place);
        }
        // SAFETY: `place` is within the buffer and has room for as many; no Rust object is in the host's buffer.
        unsafe { std::ptr::copy(data.as_ptr(), place, data.len()) };
        self.used += data.len();
        Some(place)
    }

    /// As [`Self::put`], with a NUL behind it.
    pub(crate) fn put_text(&mut self, text: &str) -> Option<*const c_char> {
        if text.len() >= self.room() {
            return None;
        }
        let place = self.put(text.as_bytes())?;
        self.put(&[0])?;
        Some(place.cast())
    }
}

pub(crate) fn too_small(needed: usize, capacity: usize) -> Failure {
    let text = format!("the buffer of {capacity} bytes is too small: {needed} are needed");
    Failure {
        needed,
        ..Failure::new(SealcastStatus::BufferTooSmall, text)
    }
}

/// Copies bytes to where a host wants them, and says how many there are, also where they do not fit.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `length` for one.
pub(crate) unsafe fn copy_out(
    data: &[u8],
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> Outcome<SealcastStatus> {
    // SAFETY: as this function's own.
    let mut out = unsafe { Buffer::new(buffer, capacity) }?;
    // SAFETY: likewise.
    unsafe { write(length, data.len(), "length") }?;
    out.put(data).ok_or_else(|| too_small(data.len(), capacity))?;
    Ok(SealcastStatus::Ok)
}

/// A text in an array of fixed length, cut at a character, NUL-terminated.
pub(crate) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut length = text.len().min(N - 1);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(&text.as_bytes()[..length]) {
        *to = *from as c_char;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Two {
        size: usize,
        first: u64,
        second: u64,
    }
    // SAFETY: `repr(C)`, the size first, numbers alone.
    unsafe impl Options for Two {
        const NAME: &'static str = "two";
        fn default_values() -> Self {
            Self {
                size: size_of::<Self>(),
                first: 1,
                second: 2,
            }
        }
    }

    fn read(values: &[u64]) -> Outcome<(u64, u64)> {
        // SAFETY: each test gives as many bytes as it says.
        unsafe { options(values.as_ptr().cast::<Two>()) }.map(|two| (two.first, two.second))
    }

    #[test]
    fn options_of_other_versions_are_read() {
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { options(std::ptr::null::<Two>()) }.unwrap().second, 2);
        assert_eq!(read(&[16, 7]).unwrap(), (7, 2));
        assert_eq!(read(&[24, 7, 8]).unwrap(), (7, 8));
        assert_eq!(read(&[32, 7, 8, 0]).unwrap(), (7, 8));
        for wrong in [[0, 7, 8, 0], [8, 7, 8, 0], [17, 7, 8, 0], [32, 7, 8, 9]] {
            assert_eq!(read(&wrong).unwrap_err().status, SealcastStatus::WrongSize);
        }
    }

    #[test]
    fn options_of_other_versions_are_made() {
        for (size, made) in [(16, [16, 1, 7, 7]), (24, [24, 1, 2, 7]), (32, [32, 1, 2, 0])] {
            let mut memory = [7u64; 4];
            // SAFETY: there are as many bytes.
            unsafe { init_options(memory.as_mut_ptr().cast::<Two>(), size) }.unwrap();
            assert_eq!(memory, made);
        }
        for wrong in [0, 8, 17] {
            // SAFETY: likewise.
            let made = unsafe { init_options([0u64; 4].as_mut_ptr().cast::<Two>(), wrong) };
            assert_eq!(made.unwrap_err().status, SealcastStatus::WrongSize);
        }
    }

    #[test]
    fn a_buffer_takes_what_fits() {
        let mut memory = [0u8; 8];
        // SAFETY: the buffer is as long as is said.
        let mut buffer = unsafe { Buffer::new(memory.as_mut_ptr(), memory.len()) }.unwrap();
        assert!(buffer.put(b"123").is_some());
        assert!(buffer.put_text("45678").is_none());
        assert!(buffer.put_text("4567").is_some());
        assert!(buffer.put(b"9").is_none());
        assert_eq!(&memory, b"1234567\0");
        assert_eq!(
            fixed::<4>("aé b"),
            [b'a' as c_char, 0xc3u8 as c_char, 0xa9u8 as c_char, 0]
        );
        assert_eq!(fixed::<3>("aé"), [b'a' as c_char, 0, 0]);
    }

    #[test]
    fn what_is_empty_stands_where_it_was_written() {
        let mut memory = [7u8; 8];
        let start = memory.as_mut_ptr();
        // SAFETY: the buffer is as long as is said.
        let mut buffer = unsafe { Buffer::new(start, memory.len()) }.unwrap();
        buffer.put_text("GET").unwrap();
        let text = buffer.put_text("").unwrap();
        assert_eq!(text.cast(), start.wrapping_add(4).cast_const());
        assert_eq!(buffer.put(b""), Some(start.wrapping_add(5).cast_const()));
        assert_eq!(&memory, b"GET\0\0\x07\x07\x07");
        // SAFETY: NULL is allowed where there are no bytes.
        let mut none = unsafe { Buffer::new(std::ptr::null_mut(), 0) }.unwrap();
        assert!(none.put(b"").is_some());
        assert!(none.put_text("").is_none());
    }
}
