//! The engine against the known answers in vectors/, which the reference implementation made: every case of every file.
//!
//! Only what is an input is given; all else that the file says has to come back. The exceptions are in questions.json.

use std::collections::BTreeSet;
use std::path::Path;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use sealcast_vectors::{Error, answer};
use serde_json::{Map, Value, json};

fn load(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn file_of(concept: &str) -> Value {
    load(&format!("../../vectors/{concept}.json"))
}

/// Names in a list, or none.
fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|name| name.as_str().unwrap())
        .collect()
}

fn write(value: &Value, to: &mut Encoder<Vec<u8>>) {
    match value {
        Value::Null => drop(to.null().unwrap()),
        Value::Bool(value) => drop(to.bool(*value).unwrap()),
        Value::Number(value) => drop(to.u64(value.as_u64().unwrap()).unwrap()),
        Value::String(value) => drop(to.str(value).unwrap()),
        Value::Array(items) => {
            to.array(items.len() as u64).unwrap();
            items.iter().for_each(|item| write(item, to));
        }
        Value::Object(fields) => {
            to.map(fields.len() as u64).unwrap();
            for (name, value) in fields {
                to.str(name).unwrap();
                write(value, to);
            }
        }
    }
}

fn read(from: &mut Decoder<'_>) -> Value {
    match from.datatype().unwrap() {
        Type::Null => {
            from.null().unwrap();
            Value::Null
        }
        Type::Bool => from.bool().unwrap().into(),
        Type::String => from.str().unwrap().into(),
        Type::Array => {
            let count = from.array().unwrap().unwrap();
            (0..count).map(|_| read(from)).collect()
        }
        Type::Map => {
            let count = from.map().unwrap().unwrap();
            let fields = (0..count).map(|_| (from.str().unwrap().to_owned(), read(from)));
            Value::Object(fields.collect())
        }
        _ => from.u64().unwrap().into(),
    }
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(value, &mut encoder);
    encoder.into_writer()
}

fn ask(concept: &str, case: &Value) -> Result<Value, Error> {
    answer(concept, &cbor(case)).map(|bytes| read(&mut Decoder::new(&bytes)))
}

/// A case of a file, divided into what is asked and what has to come back.
fn divide(questions: &Value, concept: &str, group: &Value, test: &Value) -> (Value, Value) {
    let kind = group["kind"].as_str().unwrap_or_default();
    let inputs = match names(&questions["sideChannel"]["written"]).contains(kind) {
        true => ["fields"].into(),
        false => names(&questions["inputs"][concept]),
    };
    let returned = names(&questions["returned"][concept]);
    let mut asked = group.as_object().unwrap().clone();
    let mut wanted = Map::new();
    asked.remove("tests");
    for (name, value) in test.as_object().unwrap() {
        let is_input = inputs.contains(name.as_str());
        if is_input {
            asked.insert(name.clone(), value.clone());
        }
        let is_returned = returned.contains(name.as_str()) && test["result"] == "valid";
        if !["tcId", "comment", "flags"].contains(&name.as_str()) && (!is_input || is_returned) {
            wanted.insert(name.clone(), value.clone());
        }
    }
    if let Some(steps) = asked.get_mut("steps").and_then(Value::as_array_mut) {
        let reasons = steps
            .iter_mut()
            .map(|step| match step.as_object_mut().unwrap().remove("reason") {
                Some(reason) => json!({ "reason": reason }),
                None => json!({}),
            });
        wanted.insert("steps".to_owned(), reasons.collect());
    }
    if let Some(told) = questions["toldAs"][concept].get(test["reason"].as_str().unwrap_or_default()) {
        wanted.insert("reason".to_owned(), told.clone());
    }
    let untold = names(&questions["untold"][concept]);
    wanted.retain(|name, _| !untold.contains(name.as_str()));
    if let Some(fields) = wanted.get_mut("fields").and_then(Value::as_object_mut) {
        // An empty list of earlier generations says what none says.
        fields.retain(|name, value| {
            !untold.contains(name.as_str()) && (name != "earlier" || *value != json!([]))
        });
    }
    (Value::Object(asked), Value::Object(wanted))
}

/// Asks every case of a file; names all whose answer is another.
fn check(questions: &Value, concept: &str) {
    let exceptions = match concept {
        "side_channel" => &questions["sideChannel"],
        _ => &Value::Null,
    };
    let (written, unknown) = (names(&exceptions["written"]), names(&exceptions["unknown"]));
    let file = file_of(concept);
    let (mut failed, mut passed, mut seen) = (Vec::new(), BTreeSet::new(), 0);
    for group in file["groups"].as_array().unwrap() {
        let kind = group["kind"].as_str().unwrap_or_default();
        for test in group["tests"].as_array().unwrap() {
            seen += 1;
            let is_usual = test["result"] == "valid" && test["flags"] == json!([]);
            if written.contains(kind) && !is_usual {
                // Nobody writes what is malformed, or of a later version.
                continue;
            }
            let (asked, wanted) = divide(questions, concept, group, test);
            let (answered, comment) = (ask(concept, &asked), test["comment"].as_str().unwrap());
            let is_right = match &answered {
                Ok(answered) if *answered == wanted => true,
                Ok(answered) if answered["result"] == "valid" && test["result"] == "invalid" => {
                    passed.insert(comment);
                    names(&exceptions["passed"]).contains(comment)
                }
                Ok(_) => false,
                Err(_) => unknown.contains(kind),
            };
            if !is_right {
                failed.push(format!("{} {comment}: {answered:?}, not {wanted}", test["tcId"]));
            }
        }
    }
    assert_eq!(Some(seen), file["numberOfTests"].as_u64());
    assert!(
        failed.is_empty(),
        "{concept}: {} of {seen} fail:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert_eq!(
        passed,
        names(&exceptions["passed"]),
        "no more is passed than is said, and no less"
    );
}

/// One test a file, so that they run side by side.
macro_rules! concepts {
    ($($concept:ident)*) => {
        $(#[test]
        fn $concept() {
            check(&load("questions.json"), stringify!($concept));
        })*
        const TRIED: &[&str] = &[$(stringify!($concept)),*];
    };
}

concepts! {
    beacon block_id block_path block_tree bundle channel_id commitments credential datagram delivery ed25519 frames
    heartbeat kdf key_schedule parity policy side_channel slot statement stream_id varint
}

#[test]
fn every_file_is_asked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let files: BTreeSet<String> = files
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(files, TRIED.iter().map(|&name| name.to_owned()).collect());
}

#[test]
fn what_is_no_question_is_refused_by_name() {
    let refusal = |concept: &str, case: &[u8]| match answer(concept, case) {
        Err(Error::Case(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(refusal("varints", &[0xa0]).contains("no concept 'varints', but beacon, "));
    let case = |case: Value| refusal("varint", &cbor(&case));
    assert_eq!(case(json!({})), "a case of varint: 'encoding' is missing");
    assert_eq!(
        case(json!({ "encoding": 7 })),
        "a case of varint: 'encoding': no text"
    );
    assert_eq!(
        case(json!({ "encoding": "0g" })),
        "a case of varint: 'encoding': no bytes in hexadecimal"
    );
    assert_eq!(
        case(json!({ "encoding": "012" })),
        "a case of varint: 'encoding': no bytes in hexadecimal"
    );
    assert_eq!(case(json!([])), "no map".replace("no", "a case of varint: no"));
    for broken in [
        &b""[..],
        b"\xa1",
        b"\xa1\x61",
        b"\xa1\x61a",
        b"\xbf\xff",
        b"\xa1\x61a\x20",
        b"\xa1\x61a\x41b",
        b"\xa0\x00",
    ] {
        assert!(!refusal("varint", broken).is_empty());
    }
    assert!(refusal("varint", b"\xa2\x61a\x00\x61a\x00").contains("'a' twice"));
    assert!(refusal("varint", &[0x81; 100_000]).contains("too deep a nesting at byte 8"));
    let slots = json!({ "suite": 1, "channelId": file_of("delivery")["groups"][0]["channelId"], "slots": [
        { "slot": 7, "secret": "00".repeat(32) }, { "slot": 9, "secret": "00".repeat(32) },
    ] });
    assert!(refusal("delivery", &cbor(&slots)).contains("'slots': 7 to 9 are no 32 or fewer"));
    // A count that nobody fills costs nothing.
    assert!(refusal("varint", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff").contains("no CBOR at byte 9"));
}
