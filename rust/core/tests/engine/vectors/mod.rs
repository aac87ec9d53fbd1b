//! The engine against the known answers in vectors/, which the reference implementation made.
//!
//! [`functions`] checks one function at a time, [`packets`] a whole receiver.

mod functions;
mod packets;

use serde_json::Value;

/// One case and the group that it stands in.
struct Case {
    group: Value,
    test: Value,
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Bytes of a hexadecimal field.
fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex(value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is no text")))
}

fn fixed<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    bytes(value, field)
        .try_into()
        .unwrap_or_else(|_| panic!("{field} is not of {N} bytes"))
}

fn uint(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} is no number"))
}

fn suite(value: &Value) -> sealcast_core::crypto::Suite {
    sealcast_core::crypto::Suite::from_code(uint(value, "suite")).expect("a suite")
}

fn is_valid(test: &Value) -> bool {
    test["result"] == "valid"
}

/// Every case of a file. A failure names the case, since each check runs inside [`check`].
fn cases(concept: &str) -> Vec<Case> {
    let path = format!("{}/../../vectors/{concept}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let mut cases = Vec::new();
    for group in file["groups"].as_array().expect("groups") {
        for test in group["tests"].as_array().expect("tests") {
            let group = group
                .as_object()
                .expect("a group")
                .iter()
                .filter(|(name, _)| *name != "tests");
            let group = group.map(|(name, value)| (name.clone(), value.clone())).collect();
            cases.push(Case {
                group: Value::Object(group),
                test: test.clone(),
            });
        }
    }
    assert_eq!(Some(cases.len() as u64), file["numberOfTests"].as_u64());
    cases
}

/// Runs `judge` on every case of a concept, and names all that fail.
fn check(concept: &str, mut judge: impl FnMut(&Case)) {
    let mut failed = Vec::new();
    for case in cases(concept) {
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(&case)));
        if verdict.is_err() {
            failed.push(format!("{} {}", case.test["tcId"], case.test["comment"]));
        }
    }
    assert!(
        failed.is_empty(),
        "{concept}: {} cases failed: {failed:#?}",
        failed.len()
    );
}
