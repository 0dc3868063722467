//! Threads that hand frames and decisions on, beside threads that compute.

use std::io;

/// The shortest turn that Linux grants, ns.
const TURN_NS: u64 = 100_000;

/// Has the scheduler let this thread in as soon as it is woken, in short turns. Else it waits until a session's
/// thread has had its own turn, 4 ms where the kernel ticks 250 times a second, and so at every hop between capture and
/// acknowledgement. Its share of the processor stays what it is.
///
/// Has an effect from Linux 6.12 on, needs no privilege, and leaves threads alone that somebody gave another policy than
/// the ordinary one.
pub(in crate::line) fn take_short_turns() {
    if let Err(error) = short_turns() {
        tracing::debug!(%error, "the scheduler grants no short turns");
    }
}

fn short_turns() -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = TURN_NS;
        set(&attributes)?;
    }
    Ok(())
}

/// How the scheduler treats this thread.
#[expect(unsafe_code, reason = "the kernel's call, with the structure that its header gives")]
fn attributes() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes there, and only while the call lasts.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "the kernel's call, with the structure that its header gives")]
fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the kernel reads the structure, whose size stands in it, and only while the call lasts.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_short_turns_and_keeps_the_rest() {
        std::thread::spawn(|| {
            let before = attributes().unwrap();
            short_turns().unwrap();
            let after = attributes().unwrap();
            // A kernel that knows no turns of a thread's own says 0.
            assert_eq!(after.sched_runtime, if before.sched_runtime == 0 { 0 } else { TURN_NS });
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        })
        .join()
        .unwrap();
    }
}
