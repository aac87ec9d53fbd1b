//! The header of sdk/c is what this crate says: SEALCAST_WRITE=1 writes it anew, and else it is compared.

use std::path::Path;

#[test]
fn the_header_is_what_the_crate_says() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_folder.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::generate_with_config(crate_folder, config)
        .unwrap()
        .write(&mut made);
    let path = crate_folder.join("../../sdk/c/include/sealcast.h");
    if std::env::var_os("SEALCAST_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let held = std::fs::read(&path).unwrap_or_default();
    let cure = "run: SEALCAST_WRITE=1 cargo test -p sealcast-capi --test header";
    assert!(
        made == held,
        "sdk/c/include/sealcast.h is not what rust/capi says; {cure}"
    );
}
