//! What several integration tests make for themselves.

pub(crate) mod onnx;
pub(crate) mod parts;

/// A port that the system had free just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The checkout that is being tested. Asked for when the test runs: checkouts that share their build
/// output share the test program, too, and one built in another place would look there.
pub(crate) fn root() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo").into()
}

/// Constants of a level that speaks for itself.
pub(crate) fn calibrated_level(mean: f32, deviation: f32, weight: f32) -> linegate::bundle::LevelCalibration {
    linegate::bundle::LevelCalibration {
        mean,
        deviation,
        weight,
        or_previous: false,
        normal_boundary: mean - deviation,
        abnormal_boundary: mean - 2.0 * deviation,
    }
}

/// A camera that runs freely and ends with its stream; `parameters` as TOML.
pub(crate) fn camera(pipeline: &str, parameters: &str) -> linegate::config::CameraConfig {
    linegate::config::CameraConfig {
        name: "cam".into(),
        pipeline: pipeline.into(),
        parameters: toml::from_str(parameters).unwrap(),
        deadline_ms: None,
        region_of_interest: None,
        watchdog_ms: None,
        trigger: linegate::config::TriggerMode::Free,
        trigger_timeout_ms: 1000,
        lent_buffers: 4,
        presence: None,
        ends: true,
    }
}
