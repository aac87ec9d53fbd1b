//! Multicast UDP for Sealcast: interfaces, sockets, batches of datagrams and pacing.
