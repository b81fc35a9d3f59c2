//! The node panel: what the smart client knows of each node, as cards, download lanes and a log.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vstack_charts::{SparkStyle, sparkline};
use vstack_client::{NodeCount, NodeView, Outcome, SessionSnapshot, share_percent};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;

use crate::dto::{Lane, LaneBar, LaneOutcome, LogLine, NodeCard, NodePanel, NodeStatus};

/// One sample a second: the charts show the same 30 s as the download lanes.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const SAMPLES: usize = 30;
/// Lines of the log; older ones are in the session's report.
const LOG_LINES: usize = 50;

/// Makes panels, and remembers what the charts show.
#[derive(Debug, Default)]
pub(crate) struct PanelMaker {
    scores: HashMap<NodeId, VecDeque<f64>>,
    sampled: Option<Instant>,
    down_since: HashMap<NodeId, Instant>,
}

impl PanelMaker {
    /// The panel now. `session` is that of the open video.
    pub(crate) fn panel(&mut self, nodes: &[NodeView], session: Option<&SessionSnapshot>) -> NodePanel {
        self.sample(nodes);
        NodePanel {
            nodes: nodes.iter().map(|node| self.card(node, session)).collect(),
            lanes: session.map(lanes).unwrap_or_default(),
            log: session.map(log).unwrap_or_default(),
        }
    }

    fn sample(&mut self, nodes: &[NodeView]) {
        let now = Instant::now();
        let due = self
            .sampled
            .is_none_or(|sampled| now.duration_since(sampled) >= SAMPLE_EVERY);
        if due {
            self.sampled = Some(now);
        }
        for node in nodes {
            if node.status == NodeHealth::Down {
                self.down_since.entry(node.node_id).or_insert(now);
            } else {
                self.down_since.remove(&node.node_id);
            }
            if due {
                let scores = self.scores.entry(node.node_id).or_default();
                scores.push_back(node.computed_score);
                if scores.len() > SAMPLES {
                    scores.pop_front();
                }
            }
        }
    }

    fn card(&self, node: &NodeView, session: Option<&SessionSnapshot>) -> NodeCard {
        let count =
            session.and_then(|session| session.nodes.iter().find(|count| count.node_index == node.index));
        let bytes = count.map_or(0, |count| count.bytes);
        let all_bytes = session.map_or(0, |session| session.nodes.iter().map(|count| count.bytes).sum());
        NodeCard {
            node_id: node.node_id.to_string(),
            name: node.name.clone(),
            node: u32::from(node.index),
            status: match node.status {
                NodeHealth::Healthy => NodeStatus::Healthy,
                NodeHealth::Degraded => NodeStatus::Degraded,
                NodeHealth::Down => NodeStatus::Down,
            },
            score: node.computed_score,
            latency_ms: node.latency_ms(),
            bandwidth_mbps: node.bandwidth_mbps(),
            success_percent: node.success_percent(),
            bytes,
            share_percent: share_percent(bytes, all_bytes),
            chunks: count.map_or(0, |count| count.chunks),
            note: self.note(node, count),
            chart_svg: self.chart(node),
        }
    }

    fn note(&self, node: &NodeView, count: Option<&NodeCount>) -> Option<String> {
        let moved = count.map_or(0, |count| count.failures);
        let moved = match moved {
            0 => None,
            1 => Some("1 download moved to another node".to_owned()),
            many => Some(format!("{many} downloads moved to other nodes")),
        };
        let down = self
            .down_since
            .get(&node.node_id)
            .map(|since| format!("silent for {} s", since.elapsed().as_secs()));
        match (down, moved) {
            (Some(down), Some(moved)) => Some(format!("{down} · {moved}")),
            (down, moved) => down.or(moved),
        }
    }

    fn chart(&self, node: &NodeView) -> String {
        let scores: Vec<f64> = self
            .scores
            .get(&node.node_id)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let title = format!("{}: score over the last 30 s", node.name);
        sparkline(&scores, &SparkStyle::for_node(title, usize::from(node.index)))
    }
}

fn lanes(session: &SessionSnapshot) -> Vec<Lane> {
    let bar = |bar: &vstack_client::LaneBar| LaneBar {
        start: bar.start,
        end: bar.end,
        outcome: match bar.outcome {
            Outcome::Done => LaneOutcome::Done,
            Outcome::Running => LaneOutcome::Running,
            Outcome::Failed => LaneOutcome::Failed,
            Outcome::Cancelled => LaneOutcome::Cancelled,
        },
    };
    let lane = |lane: &vstack_client::Lane| Lane {
        node: u32::from(lane.node_index),
        bars: lane.bars.iter().map(bar).collect(),
    };
    session.lanes.iter().map(lane).collect()
}

fn log(session: &SessionSnapshot) -> Vec<LogLine> {
    let newest = session.log.len().saturating_sub(LOG_LINES);
    let line = |line: &vstack_client::LogLine| LogLine {
        at: clock_time(line.at.0),
        text: line.text.clone(),
    };
    session.log.iter().skip(newest).map(line).collect()
}

/// `HH:MM:SS` where the user is.
fn clock_time(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default();
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_client::Measurements;

    fn node(status: NodeHealth) -> NodeView {
        NodeView {
            index: 6,
            name: "node-7".into(),
            node_id: NodeId(uuid::Uuid::from_u128(7)),
            node_url: "http://127.0.0.1:1".into(),
            measurements: Measurements {
                latency_ms: vec![2.0, 4.0],
                bandwidth_mbps: vec![40.0],
                success_rate: vec![1, 0],
                last_updated: None,
            },
            computed_score: 12.5,
            load: None,
            status,
        }
    }

    #[test]
    fn a_card_tells_the_means_and_has_a_chart() {
        let panel = PanelMaker::default().panel(&[node(NodeHealth::Healthy)], None);
        let card = &panel.nodes[0];
        assert_eq!(
            (card.node, card.latency_ms, card.success_percent),
            (6, Some(3.0), 50.0)
        );
        assert!(
            card.chart_svg.starts_with("<svg") && card.note.is_none(),
            "{card:?}"
        );
    }

    #[test]
    fn a_card_tells_what_the_node_brought_and_its_share_of_all() {
        let count = |node_index: u16, chunks: u64, bytes: u64| NodeCount {
            node_index,
            chunks,
            bytes,
            ..NodeCount::default()
        };
        // The pool: a node may bring a third of all bytes, and the largest part of no chunk.
        let session = SessionSnapshot {
            position_ms: 0,
            buffer_ms: 0,
            startup_ms: None,
            stalls: 0,
            stall_ms: 0,
            spans: Vec::new(),
            lanes: Vec::new(),
            nodes: vec![count(0, 9, 2_000_000), count(6, 0, 1_000_000)],
            log: Vec::new(),
        };
        let panel = PanelMaker::default().panel(&[node(NodeHealth::Healthy)], Some(&session));
        let card = &panel.nodes[0];
        assert_eq!((card.bytes, card.chunks), (1_000_000, 0));
        assert!((card.share_percent - 100.0 / 3.0).abs() < 1e-9, "{card:?}");
        let nothing = PanelMaker::default().panel(&[node(NodeHealth::Healthy)], None);
        assert_eq!((nothing.nodes[0].bytes, nothing.nodes[0].share_percent), (0, 0.0));
    }

    #[test]
    fn a_node_that_is_down_says_for_how_long() {
        let mut maker = PanelMaker::default();
        let note = maker.panel(&[node(NodeHealth::Down)], None).nodes[0].note.clone();
        assert_eq!(note.as_deref(), Some("silent for 0 s"));
        assert_eq!(
            maker.panel(&[node(NodeHealth::Healthy)], None).nodes[0].note,
            None
        );
    }
}
