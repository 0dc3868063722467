//! What several integration tests make for themselves.

pub(crate) mod onnx;
pub(crate) mod parts;

/// A port that the system had free just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
