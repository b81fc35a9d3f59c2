//! `vstack-player`.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "there is no window yet that could show it")]
fn main() -> ExitCode {
    match vstack_player::app::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vstack-player cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
