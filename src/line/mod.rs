//! The live wing: capture -> batching -> scoring -> decision -> outbox -> publishing.

pub mod archive;
pub mod batching;
pub mod capture;
pub mod outbox;
mod prompt;
pub mod publishing;
pub mod topology;

/// What a panic said.
fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
