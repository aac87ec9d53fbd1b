//! The library as it is installed, held to the known answers of the specification: a self-test for any language.

use std::ffi::c_char;

use sealcast_vectors::{Error, answer};

use crate::memory::{SealcastBytes, copy_out, text};
use crate::status::{Failure, SealcastStatus, call};

/// Answer a case of the known answers (the files of vectors/) as this library does, to be compared with the file.
///
/// `concept_name`: that of a file without its ending, such as "varint". `question`: a CBOR map of the inputs of a case
/// and of its group, with the names and values that the file has; bytes are text in hexadecimal there and here. What is
/// written to `buffer` is a CBOR map of the results in the same way, "result" and "reason" among them. `length` is how
/// long it is, also where the buffer is too small. No handle is touched and nothing is kept. Fails with
/// SEALCAST_STATUS_INVALID_ARGUMENT if there is no such concept or it is none of its cases.
///
/// # Safety
/// As the conventions say of strings, bytes and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_known_answer(
    concept_name: *const c_char,
    question: SealcastBytes,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> SealcastStatus {
    call(|| {
        // SAFETY: as this function's own.
        let concept = unsafe { text(concept_name, "concept_name") }?;
        // SAFETY: likewise.
        let question = unsafe { question.get("question") }?;
        let answered = answer(concept, question).map_err(|error| match error {
            Error::Case(text) => Failure::invalid(text),
            Error::Fault(text) => Failure::new(
                SealcastStatus::Internal,
                format!("a fault of the library: {text}"),
            ),
        })?;
        // SAFETY: likewise.
        unsafe { copy_out(&answered, buffer, capacity, length) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// {"encoding": "4040"}, and the answer to it.
    const QUESTION: &[u8] = b"\xa1\x68encoding\x644040";
    const ANSWER: &[u8] = b"\xa3\x65value\x18\x40\x68encoding\x644040\x66result\x65valid";

    fn ask(concept: *const c_char, question: &[u8], room: &mut [u8]) -> (SealcastStatus, usize) {
        let (data, mut length) = (question.as_ptr(), 0);
        let question = SealcastBytes {
            data,
            length: question.len(),
        };
        // SAFETY: strings are NUL-terminated or NULL, and the buffer is as long as is said.
        let status = unsafe {
            sealcast_known_answer(concept, question, room.as_mut_ptr(), room.len(), &raw mut length)
        };
        (status, length)
    }

    #[test]
    fn a_question_is_answered_where_there_is_room() {
        let (varint, mut room) = (c"varint".as_ptr(), [0; 64]);
        assert_eq!(
            ask(varint, QUESTION, &mut room),
            (SealcastStatus::Ok, ANSWER.len())
        );
        assert_eq!(&room[..ANSWER.len()], ANSWER);
        let short = ask(varint, QUESTION, &mut room[..ANSWER.len() - 1]);
        assert_eq!(short, (SealcastStatus::BufferTooSmall, ANSWER.len()));
    }

    #[test]
    fn what_is_no_question_gives_a_status() {
        let room = &mut [0; 64];
        assert_eq!(
            ask(std::ptr::null(), QUESTION, room).0,
            SealcastStatus::NullArgument
        );
        assert_eq!(
            ask(c"varints".as_ptr(), QUESTION, room).0,
            SealcastStatus::InvalidArgument
        );
        assert_eq!(
            ask(c"varint".as_ptr(), b"", room).0,
            SealcastStatus::InvalidArgument
        );
        assert_eq!(
            ask(c"\xff".as_ptr(), QUESTION, room).0,
            SealcastStatus::InvalidText
        );
    }
}
