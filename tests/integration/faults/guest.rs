//! A second machine inside this one: QEMU runs Debian's kernel with its virtual camera, vivid, over this
//! machine's files, so that a test meets a real Video4Linux device wherever it runs. Emulated, not
//! accelerated: where there is KVM, it is not always one that a plain kernel starts on.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cameras::ALONE;
use super::extent;

/// How the guest's first process ends its output where all went well.
const PASSED: &str = "guest: exit 0";
/// One at a time: each takes two processors and a gigabyte.
static GUEST: Mutex<()> = Mutex::new(());

/// Ends the guest with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What the guest runs: this test program again, for the one test.
fn script(test: &str) -> String {
    let mut text = String::from("mkdir -p /run/tmp /run/cache/gstreamer-1.0\n");
    // An emulated machine takes half a minute to look through GStreamer's plugins itself.
    let home = || format!("{}/.cache", std::env::var("HOME").unwrap_or_default());
    let known = format!("{}/gstreamer-1.0", std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| home()));
    writeln!(text, "cp {}/*.bin /run/cache/gstreamer-1.0/ 2>/dev/null", quoted(&known)).unwrap();
    let folder = crate::support::root();
    let mut variables = vec![
        ("TMPDIR", "/run/tmp".into()),
        ("XDG_CACHE_HOME", "/run/cache".into()),
        ("CARGO_MANIFEST_DIR", folder.to_str().unwrap().to_owned()),
        ("RUST_BACKTRACE", "1".into()),
        ("NO_COLOR", "1".into()),
        (ALONE, test.to_owned()),
    ];
    for name in ["PATH", "LINEGATE_ONNXRUNTIME", "LINEGATE_FAULTS"] {
        variables.extend(std::env::var(name).ok().map(|value| (name, value)));
    }
    for (name, value) in variables {
        writeln!(text, "export {name}={}", quoted(&value)).unwrap();
    }
    let program = std::env::current_exe().unwrap();
    let program = quoted(program.to_str().unwrap());
    writeln!(text, "cd {}\nexec {program} --exact {test} --nocapture", quoted(folder.to_str().unwrap())).unwrap();
    text
}

fn start(made: &Path, script: &Path) -> Machine {
    let file = |name: &str| {
        let file = made.join(name);
        assert!(file.is_file(), "{} is missing: run deploy/setup.sh --v4l2", file.display());
        file
    };
    let machine = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"])
        .arg("-kernel")
        .arg(file("vmlinuz"))
        .arg("-initrd")
        .arg(file("initramfs"))
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 guest.run={}", script.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("qemu-system-x86_64 cannot be run ({error}): run deploy/setup.sh --v4l2"));
    Machine(machine)
}

/// Runs a test's body in the guest; what it says there is said here.
pub(super) fn in_guest(test: &str, body: impl FnOnce()) {
    let name = format!("faults::v4l2::{test}");
    if std::env::var(ALONE).as_deref() == Ok(&name) {
        return body();
    }
    let _one = GUEST.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run");
    std::fs::write(&file, script(&name)).unwrap();
    let mut machine = start(&crate::support::root().join(".runtime/v4l2"), &file);
    let mut console = BufReader::new(machine.0.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).ok();
            line.clear();
        }
    });
    let until = Instant::now() + Duration::from_mins(extent(5, 30));
    let mut passed = false;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                passed |= line.ends_with(PASSED);
                println!("guest | {line}");
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("{name}: the guest did not come to an end; see above"),
        }
    }
    assert!(passed, "{name} failed in the guest; see above");
}
