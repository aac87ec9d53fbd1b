//! The engine's answers to the cases of vectors/.
//!
//! A library is held to its known answers where it runs, in whatever language: its host gives the inputs of a case and
//! compares what comes back with what the file says. [`answer`] takes a CBOR map of a case's inputs, those of its group
//! among them, and gives a CBOR map of the results, both with the names and the values of the file: bytes are text in
//! hexadecimal, as in JSON, so that a host turns a file into CBOR, and compares, without knowing what any field is.
//!
//! questions.json beside this folder says, for all runners, what is asked. Of each concept `inputs` are given, with all
//! that stands at the group; the rest of a case has to come back, in "delivery" also the reason of each step, which is
//! not given. Of a valid case `returned` come back too: made again, or of a key that cannot be read the given one if it
//! does the same. `untold` does not come back, and a reason comes by the word in `toldAs`. Of the side channel the
//! engine only writes the kinds in `written` (a valid case without flags: `fields` are given, "body" comes), has no
//! part in `unknown`, and lets pass what is in `passed`: it comes over TLS from a peer whose identity was proved,
//! nothing is signed over these bytes, and what they say is checked against signed objects.
//!
//! [`functions`] answers by one function at a time, [`trust`] by what is signed, [`side_channel`] by bodies,
//! [`receiver`] by a whole receiver that has joined the channel of [`site`].

#![forbid(unsafe_code)]

mod functions;
mod receiver;
mod side_channel;
pub mod site;
mod trust;
mod value;

use value::{Value, map};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The question is none: what is wrong with it.
    Case(String),
    /// The engine is not as it should be, beyond what a wrong answer can say.
    Fault(String),
}

impl Error {
    fn case(text: impl Into<String>) -> Self {
        Self::Case(text.into())
    }

    fn fault(text: impl Into<String>) -> Self {
        Self::Fault(text.into())
    }

    /// The same, said of a field.
    fn at(self, name: &str) -> Self {
        match self {
            Self::Case(text) => Self::Case(format!("'{name}': {text}")),
            fault => fault,
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Case(text) | Self::Fault(text) => f.write_str(text),
        }
    }
}

/// Why a case is refused, in the word of the file.
type Reason = &'static str;
type Answered = Result<Value, Error>;

/// How a concept's cases are answered.
type Answer = fn(&Value) -> Answered;

const CONCEPTS: [(&str, Answer); 22] = [
    ("beacon", functions::beacon),
    ("block_id", functions::block_id),
    ("block_path", functions::block_path),
    ("block_tree", functions::block_tree),
    ("bundle", trust::bundle),
    ("channel_id", functions::channel_id_of),
    ("commitments", functions::commitments),
    ("credential", trust::credential),
    ("datagram", receiver::datagram),
    ("delivery", receiver::delivery),
    ("ed25519", functions::ed25519),
    ("frames", functions::frames),
    ("heartbeat", functions::heartbeat),
    ("kdf", functions::key_derivation),
    ("key_schedule", functions::key_schedule),
    ("parity", functions::parity),
    ("policy", trust::policy),
    ("side_channel", side_channel::body),
    ("slot", functions::slot),
    ("statement", functions::statement),
    ("stream_id", functions::stream_id_of),
    ("varint", functions::varint),
];

/// The engine's answer to a case of a concept, which is a file of vectors/ by its name without ending.
///
/// # Errors
/// [`Error::Case`] if there is no such concept, or the case is not one of it; what is wrong is named.
pub fn answer(concept: &str, case: &[u8]) -> Result<Vec<u8>, Error> {
    let Some((_, answer)) = CONCEPTS.iter().find(|(name, _)| *name == concept) else {
        let names: Vec<&str> = CONCEPTS.iter().map(|(name, _)| *name).collect();
        let text = format!("there is no concept '{concept}', but {}", names.join(", "));
        return Err(Error::case(text));
    };
    let answered = Value::parse(case).and_then(|case| match case {
        Value::Map(_) => answer(&case),
        _ => Err(Error::case("no map")),
    });
    answered
        .map(|answer| answer.serialize())
        .map_err(|error| match error {
            Error::Case(text) => Error::Case(format!("a case of {concept}: {text}")),
            fault => fault,
        })
}

/// Results by their names.
type Fields = Vec<(&'static str, Value)>;

/// A case that is as it should be, with these results.
fn valid(results: Fields) -> Value {
    judged(Ok(()), results)
}

fn invalid(reason: Reason) -> Value {
    judged(Err(reason), Vec::new())
}

fn judged(verdict: Result<(), Reason>, mut results: Fields) -> Value {
    results.push(("result", if verdict.is_ok() { "valid" } else { "invalid" }.into()));
    results.extend(verdict.err().map(|reason| ("reason", reason.into())));
    map(results)
}
