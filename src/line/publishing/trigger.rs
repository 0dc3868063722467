//! The command `trigger`: which part a software-triggered camera takes next.

use std::sync::mpsc::{SyncSender, TrySendError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::commands::MAX_PAYLOAD;

/// Longest identity of a part, characters.
const MAX_PART_ID: usize = 128;

/// Payload of `cmd/trigger`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerCommand {
    /// Identity of the part, 1 to 128 characters, none of them a control character.
    #[schemars(length(min = 1, max = 128))]
    pub part_id: String,
    /// The camera to trigger; without it every software-triggered camera of the station is.
    #[serde(default)]
    pub camera: Option<String>,
}

/// Where the answer to a command goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    pub(super) topic: String,
    pub(super) correlation_data: Option<Vec<u8>>,
}

/// A trigger that arrived, to be answered by [`super::Delivery::reply`] once the part is decided.
#[derive(Debug)]
pub struct TriggerRequest {
    /// What is asked for.
    pub command: TriggerCommand,
    /// Whom to answer; none where the requester wants no answer.
    pub reply_to: Option<ReplyTo>,
}

/// Reads the payload.
///
/// # Errors
/// What is wrong with it, for the requester.
pub(super) fn read(payload: &[u8]) -> Result<TriggerCommand, String> {
    if payload.len() > MAX_PAYLOAD {
        return Err(format!("{} bytes are too many: at most {MAX_PAYLOAD}", payload.len()));
    }
    let command: TriggerCommand = serde_json::from_slice(payload)
        .map_err(|error| format!("the payload is no trigger (see `linegate schema trigger`): {error}"))?;
    let length = command.part_id.chars().count();
    if length == 0 || length > MAX_PART_ID {
        return Err(format!("`part_id` has {length} characters: 1 to {MAX_PART_ID} are allowed"));
    }
    if command.part_id.chars().any(char::is_control) {
        return Err("`part_id` has a control character".into());
    }
    Ok(command)
}

/// Hands a trigger to the line.
///
/// # Errors
/// Why it cannot be carried out, for the requester.
pub(super) fn hand_over(line: Option<SyncSender<TriggerRequest>>, request: TriggerRequest) -> Result<(), String> {
    match line.map(|line| line.try_send(request)) {
        Some(Ok(())) => Ok(()),
        Some(Err(TrySendError::Full(_))) => Err("the line has too many triggers to carry out".into()),
        None | Some(Err(TrySendError::Disconnected(_))) => {
            Err("no camera of this line is triggered by software".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_schema_allows_is_a_trigger() {
        assert_eq!(read(br#"{"part_id": "P-1"}"#).unwrap(), TriggerCommand { part_id: "P-1".into(), camera: None });
        assert_eq!(read(br#"{"part_id": "P-1", "camera": "top"}"#).unwrap().camera.as_deref(), Some("top"));
        let long = format!(r#"{{"part_id": "{}"}}"#, "x".repeat(129));
        let large = vec![b' '; MAX_PAYLOAD + 1];
        for wrong in [
            b"".as_slice(),
            b"P-1",
            b"{}",
            br#"{"part_id": ""}"#,
            br#"{"part_id": 7}"#,
            br#"{"part_id": "a\u0007"}"#,
            br#"{"part_id": "a", "speed": 1}"#,
            long.as_bytes(),
            &large,
        ] {
            assert!(read(wrong).is_err(), "{}", String::from_utf8_lossy(&wrong[..wrong.len().min(60)]));
        }
    }

    #[test]
    fn a_line_that_cannot_keep_up_says_so() {
        let (sender, _receiver) = std::sync::mpsc::sync_channel(1);
        let request = || TriggerRequest { command: read(br#"{"part_id": "a"}"#).unwrap(), reply_to: None };
        assert!(hand_over(Some(sender.clone()), request()).is_ok());
        assert!(hand_over(Some(sender), request()).unwrap_err().contains("too many"));
        assert!(hand_over(None, request()).unwrap_err().contains("no camera"));
    }
}
