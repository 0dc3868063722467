//! Real brokers and clients as processes.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Generous: only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds; panics when `patience` ends first.
pub(crate) fn eventually(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < until, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of the mosquitto packages; Debian keeps the broker out of a user's PATH.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is needed: apt-get install mosquitto mosquitto-clients"))
}

/// A mosquitto process with its own folder; killed when dropped.
pub(crate) struct Mosquitto {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one that lets everybody in.
    pub(crate) fn start() -> Self {
        Self::with(|_| "allow_anonymous true".into())
    }

    /// Starts one with further lines of configuration, which may name files of the given folder.
    pub(crate) fn with(lines: impl Fn(&Path) -> String) -> Self {
        for attempt in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let settings = format!(
                "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nautosave_interval 1\n\
                 autosave_on_changes true\nmax_inflight_messages 0\nmax_queued_messages 0\nuser root\n\
                 log_dest stderr\n{}\n",
                folder.path().display(),
                lines(folder.path())
            );
            std::fs::write(folder.path().join("mosquitto.conf"), settings).unwrap();
            let mut broker = Self { folder, port, process: None };
            // Another process may take the port in the meantime.
            match broker.try_launch() {
                Ok(()) => return broker,
                Err(log) => assert!(attempt < 5, "mosquitto does not start:\n{log}"),
            }
        }
        unreachable!()
    }

    fn try_launch(&mut self) -> Result<(), String> {
        let log = self.folder.path().join("log");
        let process = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stderr(std::fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = self.process.insert(process);
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if process.try_wait().unwrap().is_some() || Instant::now() > until {
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it again after [`Mosquitto::kill`], on the same port with what it had saved.
    pub(crate) fn restart(&mut self) {
        self.try_launch().unwrap();
    }

    /// Kills it without a chance to say or save anything.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Has it save its sessions.
    pub(crate) fn save(&self) {
        let process = self.process.as_ref().unwrap();
        let saved = self.folder.path().join("mosquitto.db");
        std::fs::remove_file(&saved).ok();
        assert!(Command::new("kill").args(["-USR1", &process.id().to_string()]).status().unwrap().success());
        // Written under another name and renamed.
        eventually("mosquitto saves its sessions", PATIENCE, || saved.exists());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// One received message.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) retained: bool,
    pub(crate) qos: u8,
    /// Message expiry, seconds.
    pub(crate) expiry_s: Option<u32>,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

impl Received {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {}", self.payload))
    }
}

/// A `mosquitto_sub` process that speaks MQTT 5; killed when dropped.
pub(crate) struct Listener {
    process: Child,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Listener {
    /// Subscribes and waits until the broker has confirmed it.
    pub(crate) fn start(port: u16, filter: &str, further: &[&str]) -> Self {
        // mosquitto_sub reports its subscription only in its debug output, on stdout, which a pipe
        // would buffer.
        let mut process = Command::new("stdbuf")
            .arg("-oL")
            .arg(program("mosquitto_sub"))
            .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-d"])
            .args(["-t", filter, "-F", "message %r %q %E %t %p"])
            .args(further)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let subscribed = Arc::new(Mutex::new(false));
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (messages, confirmed) = (Arc::clone(&received), Arc::clone(&subscribed));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(message) = line.strip_prefix("message ") {
                    let parts: Vec<&str> = message.splitn(5, ' ').collect();
                    messages.lock().unwrap().push(Received {
                        retained: parts[0] == "1",
                        qos: parts[1].parse().unwrap(),
                        expiry_s: parts[2].parse().ok(),
                        topic: parts[3].into(),
                        payload: parts[4].into(),
                    });
                } else if line.contains("Subscribed") {
                    *confirmed.lock().unwrap() = true;
                }
            }
        });
        let listener = Self { process, received };
        eventually("the subscription is confirmed", PATIENCE, || *subscribed.lock().unwrap());
        listener
    }

    /// Everything received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What was received on topics with this ending.
    pub(crate) fn on(&self, ending: &str) -> Vec<Received> {
        self.received().into_iter().filter(|message| message.topic.ends_with(ending)).collect()
    }

    /// Waits until `count` messages came on topics with this ending, and gives them.
    pub(crate) fn wait_on(&self, ending: &str, count: usize) -> Vec<Received> {
        eventually(&format!("{count} message(s) on {ending}"), PATIENCE, || self.on(ending).len() >= count);
        self.on(ending)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Runs `mosquitto_rr`: publishes a request and gives the reply's lines.
pub(crate) fn request(port: u16, topic: &str, payload: &[u8]) -> String {
    // Not from a file: this program sends an empty message then.
    let message = std::str::from_utf8(payload).unwrap();
    let output = Command::new(program("mosquitto_rr"))
        .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1"])
        .args(["-t", topic, "-e", "answers/test", "-W", "30", "-m", message])
        .args(["-D", "publish", "correlation-data", "mark-42", "-F", "%D %p"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `mosquitto_pub`.
pub(crate) fn publish(port: u16, further: &[&str]) {
    let status = Command::new(program("mosquitto_pub"))
        .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1"])
        .args(further)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Writes a mosquitto password file.
pub(crate) fn password_file(file: &Path, user: &str, password: &str) {
    let status =
        Command::new(program("mosquitto_passwd")).args(["-b", "-c"]).arg(file).args([user, password]).status().unwrap();
    assert!(status.success());
}
