/// The interface of this header. Another number means that structs or functions are not what they were.
pub const SEALCAST_ABI_VERSION: u32 = 1;
