//! The daemon as the next version might have it: one command more. For tests of machines that are upgraded
//! one by one.

#[path = "../main.rs"]
mod daemon;

fn main() -> std::process::ExitCode {
    daemon::main()
}
