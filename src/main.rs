//! Parses the command line, calls the library and turns an error into an exit code.

use std::process::ExitCode;

use linegate::telemetry::CountingAllocator;

/// For `linegate bench`, which says what a frame allocates; counting costs a frame nothing that could be measured.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[expect(unsafe_code, reason = "the environment can be set safely only here, before any thread")]
fn main() -> ExitCode {
    // SAFETY: the first statement of the program; no thread was started.
    unsafe { linegate::line::capture::prepare_process() };
    linegate::cli::main()
}
