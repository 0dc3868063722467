//! Parses the command line, calls the library and turns an error into an exit code.

use std::process::ExitCode;

#[expect(unsafe_code, reason = "the environment can be set safely only here, before any thread")]
fn main() -> ExitCode {
    // SAFETY: the first statement of the program; no thread was started.
    unsafe { linegate::line::capture::prepare_process() };
    linegate::cli::main()
}
