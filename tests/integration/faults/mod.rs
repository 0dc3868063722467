//! The fault suite: what dies, fills up or lies, and what becomes of the decisions then. Each test runs
//! a short form; `deploy/faults.sh` runs the long one.

mod account;
mod broker;
mod cameras;
mod disk;
mod fuzz;
mod gige;
#[cfg(target_arch = "x86_64")]
mod guest;
mod hangs;
mod inputs;
mod killed;
mod network;
mod outbox;
mod overload;
mod service;
// The guest is a machine of this one's kind, and only this kind was tried.
#[cfg(target_arch = "x86_64")]
mod v4l2;

/// How often or how long: `short` with the other tests, `long` with `LINEGATE_FAULTS=long`.
pub(crate) fn extent(short: u64, long: u64) -> u64 {
    match std::env::var("LINEGATE_FAULTS").as_deref() {
        Ok("long") => long,
        Ok(other) => panic!("LINEGATE_FAULTS is `{other}`: only `long` is known"),
        Err(_) => short,
    }
}

#[test]
fn the_short_form_runs_unless_the_long_one_is_asked_for() {
    let asked = std::env::var_os("LINEGATE_FAULTS").is_some();
    assert_eq!(extent(1, 2), if asked { 2 } else { 1 });
}
