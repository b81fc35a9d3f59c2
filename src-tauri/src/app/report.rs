//! What the open video's session has come to, for the page: the same figures that `vstack play` prints.

use vstack_client::{FaultSummary, NodeView, SessionReport};

use super::playback::source_policy;
use crate::dto::{Report, ReportAhead, ReportFault, ReportNode};

pub(super) fn shown(report: &SessionReport) -> Report {
    let node = |node: &NodeView| ReportNode {
        name: node.name.clone(),
        node: u32::from(node.index),
        bytes: report.bytes_by_node.get(&node.name).copied().unwrap_or(0),
        share_percent: report
            .share_percent_by_node
            .get(&node.name)
            .copied()
            .unwrap_or(0.0),
    };
    Report {
        policy: source_policy(report.policy),
        session_ms: report.session_ms,
        startup_ms: report.startup_ms,
        stalls: report.stalls,
        stall_ms: report.stall_ms,
        avg_buffer_s: report.avg_buffer_s,
        p5_buffer_s: report.p5_buffer_s,
        min_buffer_s: report.min_buffer_s,
        chunks: report.chunks,
        total_chunks: report.total_chunks,
        bytes: report.bytes,
        wasted_bytes: report.wasted_bytes,
        hedged_bytes: report.hedged_bytes,
        requests_per_chunk: report.requests_per_chunk,
        failovers: report.failovers,
        hash_failures: report.hash_failures,
        nodes: report.nodes.iter().map(node).collect(),
        faults: FaultSummary::of(&report.faults).into_iter().map(fault).collect(),
        ahead: ReportAhead {
            bytes: report.prefetch.bytes,
            used_bytes: report.prefetch.used_bytes,
            wasted_bytes: report.prefetch.wasted_bytes,
        },
    }
}

fn fault(fault: FaultSummary) -> ReportFault {
    ReportFault {
        node: u32::from(fault.node.index),
        name: fault.node.name,
        failure: fault.failure,
        times: fault.times,
        detect_p50_ms: fault.detect_p50_ms,
        detect_max_ms: fault.detect_max_ms,
        wasted_bytes: fault.wasted_bytes,
    }
}
