//! Ed25519, AES-256-GCM and the hash of a packet from several well-kept libraries, on one core; JSON on standard output.
//!
//! Each figure is the median of some runs, with the lowest and the highest, in nanoseconds of this thread's time.

use std::hint::black_box;

use ed25519_dalek::Signer;
use sha2::Digest;

const RUNS: usize = 9;
/// A full packet: what the leaf covers, and what is sealed of it.
const COVERED_BYTES: usize = 1284;
const SEALED_BYTES: usize = 1204;
const AAD: [u8; 96] = [6; 96];
const STATEMENT: [u8; 144] = [3; 144];
const SEED: [u8; 32] = [7; 32];

/// Nanoseconds of this thread on a processor.
fn clock() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    times
        .split_whitespace()
        .next()
        .and_then(|time| time.parse().ok())
        .unwrap_or(0.0)
}

struct Report(Vec<serde_json::Value>);

impl Report {
    fn time(&mut self, what: &str, library: &str, calls: u32, mut call: impl FnMut()) {
        (0..calls / 4).for_each(|_| call());
        let mut runs: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = clock();
                (0..calls).for_each(|_| call());
                (clock() - start) / f64::from(calls)
            })
            .collect();
        runs.sort_by(f64::total_cmp);
        self.0.push(serde_json::json!({
            "what": what, "library": library, "low": runs[0], "median": runs[RUNS / 2], "high": runs[RUNS - 1],
        }));
    }
}

fn main() {
    let mut report = Report(Vec::new());
    signatures(&mut report);
    sealing(&mut report);
    hashes(&mut report);
    println!("{}", serde_json::Value::from(report.0));
}

fn signatures(report: &mut Report) {
    use aws_lc_rs::signature::KeyPair as _;
    use ring::signature::KeyPair as _;
    let (sign, verify) = ("Ed25519 sign", "Ed25519 verify");
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed");
    let signature = key.sign(&STATEMENT);
    let public =
        aws_lc_rs::signature::ParsedPublicKey::new(&aws_lc_rs::signature::ED25519, key.public_key().as_ref())
            .expect("a public key");
    report.time(sign, "aws-lc-rs", 5_000, || {
        black_box(key.sign(black_box(&STATEMENT)));
    });
    report.time(verify, "aws-lc-rs", 3_000, || {
        public
            .verify_sig(black_box(&STATEMENT), signature.as_ref())
            .expect("the signature");
    });
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed");
    let public = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ED25519,
        key.public_key().as_ref().to_vec(),
    );
    report.time(sign, "ring", 5_000, || {
        black_box(key.sign(black_box(&STATEMENT)));
    });
    report.time(verify, "ring", 3_000, || {
        public
            .verify(black_box(&STATEMENT), signature.as_ref())
            .expect("the signature");
    });
    let key = ed25519_dalek::SigningKey::from_bytes(&SEED);
    let dalek = key.sign(&STATEMENT);
    assert_eq!(dalek.to_bytes(), signature.as_ref());
    let public = key.verifying_key();
    report.time(sign, "ed25519-dalek", 5_000, || {
        black_box(key.sign(black_box(&STATEMENT)));
    });
    report.time(verify, "ed25519-dalek", 3_000, || {
        public
            .verify_strict(black_box(&STATEMENT), &dalek)
            .expect("the signature");
    });
}

fn sealing(report: &mut Report) {
    let what = "AES-256-GCM seal, 1,204 bytes";
    let mut buffer = vec![5_u8; SEALED_BYTES];
    let key = aws_lc_rs::aead::LessSafeKey::new(
        aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, &SEED).expect("a key"),
    );
    report.time(what, "aws-lc-rs", 50_000, || {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key([1; 12]);
        let aad = aws_lc_rs::aead::Aad::from(&AAD[..]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, aad, black_box(&mut buffer)));
    });
    let key = ring::aead::LessSafeKey::new(
        ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &SEED).expect("a key"),
    );
    report.time(what, "ring", 50_000, || {
        let nonce = ring::aead::Nonce::assume_unique_for_key([1; 12]);
        let aad = ring::aead::Aad::from(&AAD[..]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, aad, black_box(&mut buffer)));
    });
    use aes_gcm::KeyInit;
    use aes_gcm::aead::AeadInPlace;
    let key = aes_gcm::Aes256Gcm::new(&SEED.into());
    report.time(what, "aes-gcm", 20_000, || {
        let nonce = aes_gcm::Nonce::from([1; 12]);
        let _ = black_box(key.encrypt_in_place_detached(&nonce, &AAD, black_box(&mut buffer)));
    });
}

fn hashes(report: &mut Report) {
    let what = "hash of a packet, 1,284 bytes";
    let packet = vec![1_u8; COVERED_BYTES];
    report.time(what, "SHA-256, aws-lc-rs", 30_000, || {
        black_box(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            black_box(&packet),
        ));
    });
    report.time(what, "SHA-256, sha2", 30_000, || {
        black_box(sha2::Sha256::digest(black_box(&packet)));
    });
    report.time(what, "BLAKE3, blake3, alone", 30_000, || {
        black_box(blake3::keyed_hash(&SEED, black_box(&packet)));
    });
}
