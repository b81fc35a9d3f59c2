//! What a path is like and what goes wrong on it: values from files and requests, checked before they count.
//!
//! A [`Profile`] is the line; a [`Fault`] is what happens on it. The first four faults know no HTTP and hit every byte.
//! The others change answers, and only those to `GET /chunk/…`: a node that lies about its data answers its pings well.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The requests whose answers can be changed.
pub(crate) const SUBJECT: &str = "/chunk/";
/// Nobody waits longer than this on purpose.
const MAX_DELAY_MS: u64 = 600_000;
const MAX_MBPS: f64 = 100_000.0;
/// A script or a person that lists more has made a mistake.
const MAX_FAULTS: usize = 32;

/// The line. The default is no limit and no delay.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// From the node to its clients, in Mbit/s (10^6 bits); `None` for no limit.
    pub down_mbps: Option<f64>,
    /// From clients to the node.
    pub up_mbps: Option<f64>,
    /// Added in each direction; a round trip takes twice as long.
    pub delay_ms: u64,
    /// The delay of each piece is drawn evenly from so much below to so much above; the order of bytes stays.
    pub jitter_ms: u64,
}

/// Which bytes a stall holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Both,
    /// From clients to the node.
    Up,
    /// From the node to its clients.
    Down,
}

/// How a path is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// As a killed process: connections are reset.
    #[default]
    Cut,
    /// As a stopped process: connections stay open and are silent.
    Stall,
}

/// How an answer ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The connection is closed in order.
    #[default]
    Close,
    Reset,
}

/// Something that goes wrong. `chance` is that of each answer, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Nothing moves; connections stay open, and go on where they stopped when it ends.
    Stall {
        #[serde(default)]
        direction: Direction,
    },
    /// Connections are reset, and every new one.
    Cut {},
    /// In turns: well for `up_ms`, lost for `down_ms`.
    Flap {
        up_ms: u64,
        down_ms: u64,
        #[serde(default)]
        loss: Loss,
    },
    /// A connection is reset after so many bytes from the node, on average (exponentially distributed): what a lossy
    /// line looks like where packets cannot be dropped.
    Reset { mean_bytes: u64 },
    /// The head of an answer comes byte by byte.
    SlowHeaders {
        bytes_per_s: f64,
        #[serde(default = "always")]
        chance: f64,
    },
    /// The answer ends after this share of its body.
    Truncate {
        at_share: f64,
        #[serde(default)]
        ending: Ending,
        #[serde(default = "always")]
        chance: f64,
    },
    /// The answer stops after this share of its body; the connection stays open.
    Hang {
        at_share: f64,
        #[serde(default = "always")]
        chance: f64,
    },
    /// One bit of the body is turned.
    Corrupt {
        #[serde(default = "always")]
        chance: f64,
    },
    /// `Content-Range` names bytes so much further on; the body is the right one.
    WrongRange {
        shift_bytes: i64,
        #[serde(default = "always")]
        chance: f64,
    },
    /// The answer has no announced length and never ends.
    Endless {
        #[serde(default = "always")]
        chance: f64,
    },
    /// The body's bytes are those of an earlier answer, repeated or cut to the announced length.
    Stale {
        #[serde(default = "always")]
        chance: f64,
    },
    /// The answer is this status, without a body.
    Status {
        status: u16,
        #[serde(default = "always")]
        chance: f64,
    },
}

const fn always() -> f64 {
    1.0
}

/// All of a path's state that can be set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    pub profile: Profile,
    pub faults: Vec<Fault>,
}

/// What is to be set; what is absent stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<Fault>>,
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Complaint {
    /// Where it stands, as `faults[0].chance`.
    pub field: String,
    pub reason: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl Conditions {
    /// With the parts that `change` has.
    #[must_use]
    pub fn changed(&self, change: &Change) -> Self {
        Self {
            profile: change.profile.unwrap_or(self.profile),
            faults: change.faults.clone().unwrap_or_else(|| self.faults.clone()),
        }
    }

    /// Everything that makes no sense.
    #[must_use]
    pub fn complaints(&self) -> Vec<Complaint> {
        let mut complaints = self.profile.complaints();
        if self.faults.len() > MAX_FAULTS {
            complaint(
                &mut complaints,
                "faults",
                format!("there are at most {MAX_FAULTS}"),
            );
        }
        for (index, fault) in self.faults.iter().enumerate() {
            fault.complain(&mut complaints, index);
        }
        complaints
    }
}

impl Profile {
    fn complaints(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for (field, mbps) in [
            ("profile.down_mbps", self.down_mbps),
            ("profile.up_mbps", self.up_mbps),
        ] {
            if mbps.is_some_and(|mbps| !(mbps > 0.0 && mbps <= MAX_MBPS)) {
                let reason = format!("is above 0 and at most {MAX_MBPS}; leave it out for no limit");
                complaint(&mut complaints, field, reason);
            }
        }
        for (field, ms) in [
            ("profile.delay_ms", self.delay_ms),
            ("profile.jitter_ms", self.jitter_ms),
        ] {
            if ms > MAX_DELAY_MS {
                complaint(&mut complaints, field, format!("is at most {MAX_DELAY_MS}"));
            }
        }
        complaints
    }
}

impl Fault {
    /// Whether it changes answers and nothing else.
    #[must_use]
    pub const fn knows_http(&self) -> bool {
        self.chance().is_some()
    }

    pub(crate) const fn chance(&self) -> Option<f64> {
        match *self {
            Self::Stall { .. } | Self::Cut {} | Self::Flap { .. } | Self::Reset { .. } => None,
            Self::SlowHeaders { chance, .. }
            | Self::Truncate { chance, .. }
            | Self::Hang { chance, .. }
            | Self::Corrupt { chance }
            | Self::WrongRange { chance, .. }
            | Self::Endless { chance }
            | Self::Stale { chance }
            | Self::Status { chance, .. } => Some(chance),
        }
    }

    fn complain(&self, complaints: &mut Vec<Complaint>, index: usize) {
        let mut check = |field: &str, holds: bool, reason: &str| {
            if !holds {
                complaint(complaints, &format!("faults[{index}].{field}"), reason.to_owned());
            }
        };
        if let Some(chance) = self.chance() {
            check("chance", (0.0..=1.0).contains(&chance), "is from 0 to 1");
        }
        match *self {
            Self::Truncate { at_share, .. } | Self::Hang { at_share, .. } => {
                check("at_share", (0.0..=1.0).contains(&at_share), "is from 0 to 1");
            }
            Self::SlowHeaders { bytes_per_s, .. } => {
                let sensible = (0.01..=1e6).contains(&bytes_per_s);
                check("bytes_per_s", sensible, "is from 0.01 to 1000000");
            }
            Self::Reset { mean_bytes } => check("mean_bytes", mean_bytes > 0, "is above 0"),
            Self::Status { status, .. } => {
                check("status", (200..=599).contains(&status), "is from 200 to 599")
            }
            Self::WrongRange { shift_bytes, .. } => {
                check(
                    "shift_bytes",
                    shift_bytes != 0,
                    "is not 0: that would be no fault",
                );
            }
            Self::Flap { up_ms, down_ms, .. } => {
                let sensible = |ms: u64| (1..=MAX_DELAY_MS).contains(&ms);
                let reason = format!("is from 1 to {MAX_DELAY_MS}");
                check("up_ms", sensible(up_ms), &reason);
                check("down_ms", sensible(down_ms), &reason);
            }
            Self::Stall { .. }
            | Self::Cut {}
            | Self::Corrupt { .. }
            | Self::Endless { .. }
            | Self::Stale { .. } => {}
        }
    }
}

fn complaint(complaints: &mut Vec<Complaint>, field: &str, reason: String) {
    complaints.push(Complaint {
        field: field.to_owned(),
        reason,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_value_is_named_with_its_place() {
        let conditions = Conditions {
            profile: Profile {
                down_mbps: Some(0.0),
                up_mbps: Some(f64::NAN),
                delay_ms: MAX_DELAY_MS + 1,
                jitter_ms: 0,
            },
            faults: vec![
                Fault::Corrupt { chance: 1.5 },
                Fault::Hang {
                    at_share: -0.1,
                    chance: 1.0,
                },
                Fault::Flap {
                    up_ms: 0,
                    down_ms: 5,
                    loss: Loss::Cut,
                },
                Fault::Reset { mean_bytes: 0 },
                Fault::Status {
                    status: 42,
                    chance: 1.0,
                },
            ],
        };
        let fields: Vec<String> = conditions
            .complaints()
            .into_iter()
            .map(|complaint| complaint.field)
            .collect();
        let expected = [
            "profile.down_mbps",
            "profile.up_mbps",
            "profile.delay_ms",
            "faults[0].chance",
            "faults[1].at_share",
            "faults[2].up_ms",
            "faults[3].mean_bytes",
            "faults[4].status",
        ];
        assert_eq!(fields, expected);
        assert!(Conditions::default().complaints().is_empty());
    }

    #[test]
    fn a_fault_is_read_from_its_kind_and_unknown_fields_are_refused() {
        let hang: Fault = serde_json::from_str(r#"{"kind":"hang","at_share":0.95}"#).unwrap();
        assert_eq!(
            hang,
            Fault::Hang {
                at_share: 0.95,
                chance: 1.0
            }
        );
        for bad in [
            r#"{"kind":"cut","chance":1}"#,
            r#"{"kind":"corrupt","chnace":1}"#,
            r#"{"kind":"melt"}"#,
            r#"{"kind":"flap","up_ms":1}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = Conditions {
            profile: Profile {
                delay_ms: 7,
                ..Profile::default()
            },
            faults: vec![Fault::Cut {}],
        };
        let healed = before.changed(&Change {
            faults: Some(Vec::new()),
            profile: None,
        });
        assert_eq!((healed.profile, healed.faults.len()), (before.profile, 0));
    }
}
