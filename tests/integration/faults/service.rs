//! What the service manager hears, on a real socket as systemd opens it.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::publishing::brokers::PATIENCE;
use crate::run::{Site, linegate};

/// Messages until one fulfils the condition.
fn until(socket: &UnixDatagram, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut heard = Vec::new();
    let mut message = [0; 4096];
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "not heard in {heard:?}");
        let Ok(length) = socket.recv(&mut message) else { continue };
        heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
        if heard.last().is_some_and(|last| wanted(last)) {
            return heard;
        }
    }
}

#[test]
fn the_service_manager_hears_ready_the_state_signs_of_life_and_the_stop() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 20, &[128; 3], "").add("loop = true");
    let path = site.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut line = linegate(&["run", "--config", site.path().to_str().unwrap()])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first = until(&socket, |message| message.contains("READY=1"));
    assert_eq!(first.len(), 1, "nothing before it is ready: {first:?}");
    let then = until(&socket, |message| message.contains("STATUS=executing"));
    assert!(then.iter().all(|message| !message.contains("READY=1")));
    for _ in 0..3 {
        until(&socket, |message| message.contains("WATCHDOG=1"));
    }
    // A line that is stopped by the system gives no sign of life: systemd would end it.
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &line.id().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    while socket.recv(&mut [0; 64]).is_ok() {}
    assert!(socket.recv(&mut [0; 64]).is_err());
    signal("-CONT");
    until(&socket, |message| message.contains("WATCHDOG=1"));
    signal("-TERM");
    until(&socket, |message| message.contains("STOPPING=1"));
    assert!(line.wait().unwrap().success());
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let unit = crate::support::root().join("deploy/linegate.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    for line in ["Type=notify", "WatchdogSec=30", "Restart=on-failure"] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}
