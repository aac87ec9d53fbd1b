//! The Sealcast engine: datagrams, time and randomness go in; events, commands and the next deadline come out.

#![forbid(unsafe_code)]
