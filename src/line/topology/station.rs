//! The station's state after OPC 40100-1, from what is known about model, cameras and broker.
//! [`Station::state`] is a plain function of these facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::line::publishing::StationState;

#[derive(Debug, Clone, PartialEq)]
enum CameraState {
    Starting,
    Up,
    Down(String),
    Ended,
}

/// Everything that the state follows from.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each true or not")]
pub(super) struct Station {
    cameras: BTreeMap<Arc<str>, CameraState>,
    pub(super) model_loaded: bool,
    /// Why a new model could not be taken over, while the former goes on.
    pub(super) model_problem: Option<String>,
    /// Why there is no session to score with, after there was one.
    pub(super) model_lost: Option<String>,
    /// Where a damaged outbox was put.
    pub(super) outbox_set_aside: Option<std::path::PathBuf>,
    pub(super) broker_connected: bool,
    pub(super) inspecting: bool,
    pub(super) halted: bool,
    /// Model, cameras and broker were ready together at least once.
    was_ready: bool,
}

impl Station {
    pub(super) fn new(cameras: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            cameras: cameras.into_iter().map(|camera| (camera, CameraState::Starting)).collect(),
            model_loaded: false,
            model_problem: None,
            model_lost: None,
            outbox_set_aside: None,
            was_ready: false,
            broker_connected: false,
            inspecting: false,
            halted: false,
        }
    }

    pub(super) fn camera_up(&mut self, camera: &Arc<str>) {
        self.cameras.insert(camera.clone(), CameraState::Up);
    }

    pub(super) fn camera_down(&mut self, camera: &Arc<str>, reason: String) {
        self.cameras.insert(camera.clone(), CameraState::Down(reason));
    }

    pub(super) fn camera_ended(&mut self, camera: &Arc<str>) {
        self.cameras.insert(camera.clone(), CameraState::Ended);
    }

    /// Whether nothing comes any more.
    pub(super) fn all_ended(&self) -> bool {
        self.cameras.values().all(|state| *state == CameraState::Ended)
    }

    /// Notes whether everything is ready now: before it was once, nothing is `executing`.
    pub(super) fn look(&mut self) {
        self.was_ready |= self.model_loaded && self.broker_connected && self.all_up();
    }

    fn all_up(&self) -> bool {
        self.cameras.values().all(|state| matches!(state, CameraState::Up | CameraState::Ended))
    }

    /// The state and what a person should know about it.
    pub(super) fn state(&self) -> (StationState, Option<String>) {
        let mut details: Vec<String> = self
            .cameras
            .iter()
            .filter_map(|(name, state)| match state {
                CameraState::Down(reason) => Some(format!("camera {name} is down: {reason}")),
                _ => None,
            })
            .collect();
        let blind = !details.is_empty()
            && !self.cameras.values().any(|state| matches!(state, CameraState::Up | CameraState::Starting));
        details.extend(self.model_problem.clone());
        details.extend(self.model_lost.as_ref().map(|why| format!("the model was lost: {why}")));
        details.extend(
            self.outbox_set_aside
                .as_ref()
                .map(|file| format!("the outbox was damaged: its decisions stand unpublished in {}", file.display())),
        );
        let state = if self.halted {
            details.clear();
            StationState::Halted
        } else if !self.model_loaded {
            StationState::Preoperational
        } else if blind || self.model_lost.is_some() {
            StationState::Error
        } else if self.inspecting && self.was_ready {
            StationState::Executing
        } else if self.all_up() && self.broker_connected {
            StationState::Ready
        } else {
            StationState::Initialized
        };
        (state, (!details.is_empty()).then(|| details.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_station_goes_through_its_states_and_back_from_an_error() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut station = Station::new([a.clone(), b.clone()]);
        assert_eq!(station.state(), (StationState::Preoperational, None));
        station.model_loaded = true;
        assert_eq!(station.state().0, StationState::Initialized);
        station.camera_up(&a);
        station.broker_connected = true;
        assert_eq!(station.state().0, StationState::Initialized, "b is not up yet");
        station.camera_up(&b);
        assert_eq!(station.state().0, StationState::Ready);
        station.look();
        station.inspecting = true;
        assert_eq!(station.state().0, StationState::Executing);
        station.camera_down(&a, "unplugged".into());
        assert_eq!(station.state(), (StationState::Executing, Some("camera a is down: unplugged".into())));
        station.camera_down(&b, "unplugged".into());
        assert_eq!(station.state().0, StationState::Error);
        station.camera_up(&b);
        assert_eq!(station.state().0, StationState::Executing);
        station.camera_ended(&a);
        station.camera_ended(&b);
        assert!(station.all_ended());
        station.halted = true;
        assert_eq!(station.state(), (StationState::Halted, None));
    }

    #[test]
    fn nothing_is_executing_before_model_cameras_and_broker_were_ready_once() {
        let mut station = Station::new(["a".into()]);
        station.model_loaded = true;
        station.camera_up(&"a".into());
        station.inspecting = true;
        station.look();
        assert_eq!(station.state().0, StationState::Initialized, "the broker is missing");
        station.broker_connected = true;
        station.look();
        assert_eq!(station.state().0, StationState::Executing);
        station.broker_connected = false;
        station.look();
        assert_eq!(station.state().0, StationState::Executing, "decisions wait in the outbox");
        station.model_lost = Some("gone".into());
        assert_eq!(station.state(), (StationState::Error, Some("the model was lost: gone".into())));
    }

    #[test]
    fn a_model_that_cannot_be_taken_over_is_told_while_the_line_goes_on() {
        let mut station = Station::new(["a".into()]);
        station.model_loaded = true;
        station.broker_connected = true;
        station.camera_up(&"a".into());
        station.look();
        station.inspecting = true;
        station.model_problem = Some("torn".into());
        assert_eq!(station.state(), (StationState::Executing, Some("torn".into())));
    }
}
