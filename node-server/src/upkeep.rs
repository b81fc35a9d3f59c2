//! How the nodes look after their disks, for `vstack status`: each node is asked itself, since only it knows where its
//! scrub stands. A node that does not answer in time is shown without it.

use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use vstack_api::StorageClient;
use vstack_api::wire::{NodeEntry, ScrubHealth};
use vstack_core::node::NodeHealth;

/// Nobody waits longer for a table.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A node as the catalogue lists it, and what it says of its disk.
#[derive(Debug, Serialize)]
pub(crate) struct NodeStatus {
    #[serde(flatten)]
    pub(crate) entry: NodeEntry,
    /// Nothing if the node does not answer.
    pub(crate) scrub: Option<ScrubHealth>,
}

/// Asks all of them at once, but for those that the catalogue holds for dead.
pub(crate) async fn ask(nodes: Vec<NodeEntry>) -> Vec<NodeStatus> {
    let asked = nodes.into_iter().map(|entry| async move {
        let scrub = if entry.status == NodeHealth::Down {
            None
        } else {
            let storage = StorageClient::new(&entry.node_url);
            let answer = tokio::time::timeout(ANSWER_WITHIN, storage.health()).await;
            answer.ok().and_then(Result::ok).map(|health| health.scrub)
        };
        NodeStatus { entry, scrub }
    });
    join_all(asked).await
}

/// `42 %, last clean 3 h ago`.
pub(crate) fn scrub_cell(scrub: Option<&ScrubHealth>, now_ms: u64) -> String {
    let Some(scrub) = scrub else {
        return "-".to_owned();
    };
    let progress = if scrub.running {
        let percent = scrub.checked_bytes.saturating_mul(100) / scrub.total_bytes.max(1);
        format!("{} %", percent.min(100))
    } else if scrub.last_ended_ms.is_some() {
        "done".to_owned()
    } else {
        "not yet".to_owned()
    };
    let damaged = match scrub.findings.len() {
        0 => String::new(),
        found => format!(", {found} damaged"),
    };
    let clean = match scrub.last_clean_ms {
        Some(at) => format!(", last clean {} ago", age(now_ms.saturating_sub(at))),
        None if scrub.last_ended_ms.is_some() => ", never clean".to_owned(),
        None => String::new(),
    };
    format!("{progress}{damaged}{clean}")
}

/// One unit is enough: `40 s`, `12 min`, `3 h`, `5 d`.
fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 3_600_000;

    fn check(scrub: ScrubHealth, expected: &str) {
        assert_eq!(scrub_cell(Some(&scrub), NOW_MS), expected);
    }

    #[test]
    fn the_scrub_is_told_in_a_few_words() {
        assert_eq!(scrub_cell(None, NOW_MS), "-");
        check(ScrubHealth::default(), "not yet");
        let first = ScrubHealth {
            running: true,
            checked_bytes: 84,
            total_bytes: 200,
            ..ScrubHealth::default()
        };
        check(first.clone(), "42 %");
        let later = ScrubHealth {
            last_ended_ms: Some(NOW_MS - 3 * HOUR_MS),
            last_clean_ms: Some(NOW_MS - 3 * HOUR_MS),
            ..first
        };
        check(later.clone(), "42 %, last clean 3 h ago");
        let ended = ScrubHealth {
            running: false,
            last_clean_ms: None,
            ..later
        };
        check(ended, "done, never clean");
    }

    #[test]
    fn an_age_has_one_unit() {
        for (ms, expected) in [
            (0, "0 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (2 * HOUR_MS, "2 h"),
            (60 * HOUR_MS, "2 d"),
        ] {
            assert_eq!(age(ms), expected);
        }
    }
}
