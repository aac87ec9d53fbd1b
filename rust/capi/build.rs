//! Gives libsealcast the name by which programs find it: the interface's number is in it, so that one never meets another.

#[path = "src/abi.rs"]
#[expect(unreachable_pub)] // It is public in the library.
mod abi;

fn main() {
    println!("cargo:rerun-if-changed=src/abi.rs");
    let version = abi::SEALCAST_ABI_VERSION;
    let target = |what| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let name = if target("VENDOR") == "apple" {
        format!("-install_name,@rpath/libsealcast.{version}.dylib")
    } else if target("FAMILY") == "unix" {
        format!("-soname,libsealcast.so.{version}")
    } else {
        // Windows goes by the name of the file.
        return;
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,{name}");
}
