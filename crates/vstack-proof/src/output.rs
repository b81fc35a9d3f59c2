//! What the runs print. A reader that has gone away is no error.

use std::io::Write as _;

pub(crate) fn text(text: &str) {
    // Nobody is left to tell if this fails.
    drop(writeln!(std::io::stdout(), "{text}"));
}

pub(crate) fn error(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
