//! The form in which a run of the protocol is told: stories, a simulated run, a counterexample of the model checker.
//!
//! One list of steps, each an arrow from one actor to another (or to itself) with what it did to the receiver. JSON
//! keeps this form; whoever draws sequence diagrams needs nothing else.

use serde::{Deserialize, Serialize};

/// A told run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// One word in kebab-case, the name of a file or an argument.
    pub name: String,
    /// One sentence: what the run shows.
    pub title: String,
    /// The invariant that breaks at the last step; `None` where all hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violated: Option<String>,
    pub steps: Vec<TraceStep>,
}

/// One arrow of the diagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// From 1.
    pub step: u32,
    /// An actor: `catalogue`, `node 1`, `uploader 2`, ...
    pub from: String,
    pub to: String,
    /// `OPEN`, `ACCEPT 5.1`, `crash`, ...
    pub message: String,
    /// What it did: `granted ballot 2 on nodes 0, 1`, `refused: ballot 2 was granted since`, ...
    pub effect: String,
}

impl Trace {
    /// An empty run.
    #[must_use]
    pub fn new(name: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            violated: None,
            steps: Vec::new(),
        }
    }

    /// Adds the next arrow.
    pub fn push(
        &mut self,
        (from, to): (impl Into<String>, impl Into<String>),
        message: impl Into<String>,
        effect: impl Into<String>,
    ) {
        let step = u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX);
        self.steps.push(TraceStep {
            step,
            from: from.into(),
            to: to.into(),
            message: message.into(),
            effect: effect.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_numbers_its_steps_and_keeps_its_json() {
        let mut trace = Trace::new("duel", "Two uploaders, one winner.");
        trace.push(("uploader 1", "catalogue"), "OPEN", "granted ballot 1");
        trace.push(
            ("uploader 2", "catalogue"),
            "OPEN",
            "refused: uploader 1 is working",
        );
        let json = serde_json::to_value(&trace).unwrap();
        assert_eq!(json["steps"][1]["step"], 2);
        assert_eq!(json["steps"][1]["from"], "uploader 2");
        assert!(json.get("violated").is_none());
        assert_eq!(serde_json::from_value::<Trace>(json).unwrap(), trace);
    }
}
