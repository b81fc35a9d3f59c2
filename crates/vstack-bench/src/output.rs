//! What a bench prints: the one place with the exception from the print lints.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a bench does; it goes through here"
)]

/// What is being done now.
pub(crate) fn step(text: &str) {
    println!("==> {text}");
}

/// Something worth knowing about the present step.
pub(crate) fn note(text: &str) {
    println!("    {text}");
}

/// Text as it is.
pub(crate) fn text(text: &str) {
    println!("{text}");
}

pub(crate) fn error(text: &str) {
    eprintln!("error: {text}");
}
