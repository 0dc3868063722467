//! Parses the command line, calls the library and turns an error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    linegate::cli::main()
}
