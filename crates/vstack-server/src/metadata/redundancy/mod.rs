//! Conversion and repair: the pure rules of `vstack-core` say what should be where, and here it is brought about.
//!
//! Three workers run in the metadata role, since they need its catalogue and nothing else. One carries out the redundancy
//! policy and operators' wishes, one chunk at a time and at half speed; one makes lost parts again, those first that are
//! closest to being lost; one evens out the nodes when it is told to. After a restart they look and go on: what they must
//! not forget (who lied, what is to be evened out, how fast work was) is in the catalogue. Every byte they read is checked
//! against the placement, and a part that fails the check counts as lost from then on.

mod convert;
mod events;
mod heal;
mod mover;
mod policy;
mod progress;
mod rebalance;
mod routes;
mod speed;
mod trust;

use std::sync::Mutex;

use tokio::sync::{Notify, watch};
use vstack_api::redundancy::RedundancyStatus;
use vstack_core::placement::Scheme;
use vstack_core::rebalance::BalanceState;
use vstack_core::redundancy::{ClusterFacts, VideoFacts};
use vstack_core::time::UnixMillis;
use vstack_core::{redundancy, repair};
use vstack_meta::{NodeRecord, Remembered, VideoRedundancy};

use super::state::Metadata;

pub(super) use convert::run as convert_for_ever;
pub(super) use events::listen;
pub(super) use heal::run as heal_for_ever;
pub(super) use policy::{durability, explain, report};
pub(super) use rebalance::{
    apply as apply_balance, pause as pause_balance, run as balance_for_ever, show as show_balance,
};
pub(super) use routes::{set, show, status, suspect};
pub(super) use trust::run as compare_for_ever;

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RedundancySettings {
    pub policy: redundancy::Settings,
    pub repair: repair::Settings,
}

/// What the workers say of themselves, and how they are woken.
#[derive(Debug, Default)]
pub(super) struct Redundancy {
    status: Mutex<RedundancyStatus>,
    speeds: Mutex<speed::Speeds>,
    /// The status is another one than it was.
    changed: watch::Sender<()>,
    /// What the operator wants of the rebalance worker.
    balance: Mutex<BalanceState>,
    changing_balance: tokio::sync::Mutex<()>,
    wake_balance: Notify,
    /// There is something to convert, perhaps.
    wake_convert: Notify,
    /// A part was found to be lost.
    pub(super) wake_heal: Notify,
    /// Which nodes count.
    pub(super) trust: trust::Trust,
}

impl Redundancy {
    /// As the role was when it ended.
    pub(super) fn remembering(remembered: &Remembered) -> Self {
        Self {
            speeds: Mutex::new(speed::Speeds::remembering(&remembered.speeds)),
            balance: Mutex::new(remembered.balance),
            trust: trust::Trust::remembering(&remembered.lies),
            ..Self::default()
        }
    }
}

/// The scheme of most of a video's media chunks. A conversion that was interrupted leaves some of each.
const fn scheme_of(video: &VideoRedundancy) -> Scheme {
    if 2 * video.erasure_chunks > video.chunks {
        Scheme::Erasure
    } else {
        Scheme::Replicated
    }
}

fn video_facts(metadata: &Metadata, video: &VideoRedundancy, now: UnixMillis) -> VideoFacts {
    VideoFacts {
        popularity: video.popularity.decayed(now, metadata.settings.view_half_life_ms),
        created_at: video.created_at,
        size_bytes: video.size_bytes,
        mode: scheme_of(video),
        last_conversion: video.converted_at,
        pin: video.pin,
    }
}

fn cluster_facts(nodes: &[NodeRecord]) -> ClusterFacts {
    let takers: Vec<&NodeRecord> = nodes
        .iter()
        .filter(|node| node.is_member() && node.state.takes_parts() && !node.read_only)
        .collect();
    let used: f64 = takers.iter().map(|node| node.disk_usage_percent / 100.0).sum();
    ClusterFacts {
        nodes: takers.len(),
        used_share: used / (takers.len().max(1)) as f64,
    }
}
