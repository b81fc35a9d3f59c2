//! Everything that `vstack` prints. Standard output carries the result: JSON lines, or text for people; a progress bar
//! appears on a terminal only. Failures for people go to standard error.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::Failure;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: !json && std::io::stdout().is_terminal(),
        }
    }

    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// A fact in both forms: one JSON line, or the text.
    pub(crate) fn say(self, fact: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(fact);
        } else {
            self.line(&text());
        }
    }

    /// Only with `--json`.
    pub(crate) fn json_line(self, fact: &impl Serialize) {
        if self.json {
            let line =
                serde_json::to_string(fact).expect("what is printed has string keys and finite numbers");
            write_out(&format!("{line}\n"));
        }
    }

    /// Only for people.
    pub(crate) fn line(self, text: &str) {
        if !self.json {
            self.clear_bar();
            write_out(&format!("{}\n", text.trim_end_matches('\n')));
        }
    }

    /// A line on a terminal that the next one overwrites.
    pub(crate) fn bar(self, text: &str) {
        if self.terminal {
            write_out(&format!("\r\x1b[K{text}"));
        }
    }

    /// Whether [`Output::bar`] shows anything.
    pub(crate) const fn has_bar(self) -> bool {
        self.terminal
    }

    pub(crate) fn clear_bar(self) {
        if self.terminal {
            write_out("\r\x1b[K");
        }
    }

    pub(crate) fn failure(self, failure: &Failure) {
        self.clear_bar();
        if self.json {
            self.json_line(&failure.as_problem());
        } else {
            // Nobody is left to tell when this fails.
            let _ = writeln!(std::io::stderr(), "vstack: {failure}");
        }
    }
}

/// A reader that has gone away (`vstack … | head`) is no reason to fail.
fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
