//! A set of named paths, set up from a file, changed by its script and from outside.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::conditions::{Change, Complaint, Conditions, Fault, Profile};
use crate::{Emulated, Emulator, EmulatorError};

const MAX_NAME_BYTES: usize = 64;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where all chance begins.
    #[serde(default = "first_seed")]
    pub seed: u64,
    /// Where the paths can be looked at and changed; a free loopback port if absent.
    #[serde(default = "free_loopback")]
    pub control: SocketAddr,
    #[serde(rename = "path", default)]
    pub paths: Vec<PlannedPath>,
    /// The script.
    #[serde(rename = "event", default)]
    pub events: Vec<Event>,
}

/// A path, and how it begins.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPath {
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// `http://HOST:PORT` or `HOST:PORT`, with an IP address as the host.
    #[serde(deserialize_with = "address")]
    pub node: SocketAddr,
    #[serde(default = "free_loopback")]
    pub listen: SocketAddr,
    #[serde(default)]
    pub profile: Profile,
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// A change at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Since the start.
    pub at_ms: u64,
    /// All paths if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Absent: stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Absent: they stay; an empty list ends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<Fault>>,
}

impl Event {
    fn change(&self) -> Change {
        Change {
            profile: self.profile,
            faults: self.faults.clone(),
        }
    }
}

const fn first_seed() -> u64 {
    1
}

fn free_loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bare = text
        .strip_prefix("http://")
        .unwrap_or(&text)
        .trim_end_matches('/');
    bare.parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is no http://IP:PORT")))
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// With line and column.
    #[error("{0}")]
    Unreadable(String),
    /// All of them.
    #[error("{}", lines(.0))]
    Senseless(Vec<Complaint>),
}

fn lines(complaints: &[Complaint]) -> String {
    let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
    lines.join("\n")
}

impl Plan {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// It is no such TOML, or values make no sense; all of these are told at once.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)
            .map_err(|error| PlanError::Unreadable(error.to_string().trim_end().to_owned()))?;
        let complaints = plan.complaints();
        if complaints.is_empty() {
            Ok(plan)
        } else {
            Err(PlanError::Senseless(complaints))
        }
    }

    fn complaints(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut names = BTreeSet::new();
        if self.paths.is_empty() {
            complaints.push(complaint(
                "path",
                "there is none: a [[path]] with name and node is needed",
            ));
        }
        for (index, path) in self.paths.iter().enumerate() {
            let place = format!("path[{index}]");
            if !is_name(&path.name) {
                let reason = "is made of a-z, 0-9 and hyphens, at most 64 of them";
                complaints.push(complaint(&format!("{place}.name"), reason));
            } else if !names.insert(path.name.as_str()) {
                complaints.push(complaint(&format!("{place}.name"), "is there twice"));
            }
            let begin = Conditions {
                profile: path.profile,
                faults: path.faults.clone(),
            };
            complaints.extend(placed(&place, begin.complaints()));
        }
        for (index, event) in self.events.iter().enumerate() {
            let place = format!("event[{index}]");
            if event
                .path
                .as_ref()
                .is_some_and(|name| !names.contains(name.as_str()))
            {
                complaints.push(complaint(
                    &format!("{place}.path"),
                    "there is no path of that name",
                ));
            }
            let conditions = Conditions::default().changed(&event.change());
            complaints.extend(placed(&place, conditions.complaints()));
        }
        complaints
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

fn complaint(field: &str, reason: &str) -> Complaint {
    Complaint {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

fn placed(place: &str, complaints: Vec<Complaint>) -> impl Iterator<Item = Complaint> {
    complaints.into_iter().map(move |complaint| Complaint {
        field: format!("{place}.{}", complaint.field),
        ..complaint
    })
}

/// A path as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    pub name: String,
    /// What clients connect to.
    pub url: String,
    /// What stands behind it.
    pub node: String,
    pub profile: Profile,
    pub faults: Vec<Fault>,
    pub connections: u32,
    pub down_bytes: u64,
    pub up_bytes: u64,
}

/// Why a path was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabError {
    #[error("there is no path \"{name}\"; there are: {known}")]
    NoSuchPath { name: String, known: String },
    #[error("{}", lines(.0))]
    Senseless(Vec<Complaint>),
}

/// Running paths. They end when this is dropped.
#[derive(Debug)]
pub struct Lab {
    paths: Vec<Placed>,
}

#[derive(Debug)]
struct Placed {
    name: String,
    node: SocketAddr,
    emulated: Emulated,
    beginning: Conditions,
}

impl Lab {
    /// Starts every path of a plan; its script begins with [`Lab::play`].
    ///
    /// # Errors
    /// An address is taken.
    pub async fn start(plan: &Plan) -> Result<Self, EmulatorError> {
        let mut paths = Vec::new();
        for (planned, number) in plan.paths.iter().zip(0_u64..) {
            let beginning = Conditions {
                profile: planned.profile,
                faults: planned.faults.clone(),
            };
            let seed = plan.seed.wrapping_add(number);
            let emulated = Emulator::start_on(planned.listen, planned.node, beginning.clone(), seed).await?;
            paths.push(Placed {
                name: planned.name.clone(),
                node: planned.node,
                emulated,
                beginning,
            });
        }
        Ok(Self { paths })
    }

    #[must_use]
    pub fn list(&self) -> Vec<PathView> {
        self.paths.iter().map(Placed::view).collect()
    }

    /// One path.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn path(&self, name: &str) -> Result<PathView, LabError> {
        self.find(name).map(Placed::view)
    }

    /// Changes one path, now.
    ///
    /// # Errors
    /// There is none of that name, or the values make no sense; then nothing changes.
    pub fn set(&self, name: &str, change: &Change) -> Result<PathView, LabError> {
        let path = self.find(name)?;
        let conditions = path.emulated.handle.conditions().changed(change);
        let complaints = conditions.complaints();
        if !complaints.is_empty() {
            return Err(LabError::Senseless(complaints));
        }
        path.emulated.handle.set(conditions);
        Ok(path.view())
    }

    /// Makes one path what it was at the start.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn clear(&self, name: &str) -> Result<PathView, LabError> {
        let path = self.find(name)?;
        path.emulated.handle.set(path.beginning.clone());
        Ok(path.view())
    }

    /// Follows a script to its end. `told` hears of each event when it has happened.
    pub async fn play(&self, events: &[Event], mut told: impl FnMut(&Event)) {
        let started = Instant::now();
        let mut events: Vec<&Event> = events.iter().collect();
        events.sort_by_key(|event| event.at_ms);
        for event in events {
            sleep_until(started + Duration::from_millis(event.at_ms)).await;
            for path in &self.paths {
                if event.path.as_ref().is_none_or(|name| *name == path.name) {
                    let handle = &path.emulated.handle;
                    handle.set(handle.conditions().changed(&event.change()));
                }
            }
            told(event);
        }
    }

    fn find(&self, name: &str) -> Result<&Placed, LabError> {
        let found = self.paths.iter().find(|path| path.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.paths.iter().map(|path| path.name.as_str()).collect();
            LabError::NoSuchPath {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
    }
}

impl Placed {
    fn view(&self) -> PathView {
        let Conditions { profile, faults } = self.emulated.handle.conditions();
        PathView {
            name: self.name.clone(),
            url: self.emulated.url(),
            node: format!("http://{}", self.node),
            profile,
            faults,
            connections: self.emulated.handle.connections(),
            down_bytes: self.emulated.handle.down_bytes(),
            up_bytes: self.emulated.handle.up_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        seed = 7
        [[path]]
        name = "fast"
        node = "http://127.0.0.1:7410"
        profile = { down_mbps = 20.0, delay_ms = 10, jitter_ms = 2 }
        [[path]]
        name = "slow"
        node = "127.0.0.1:7411"
        faults = [{ kind = "hang", at_share = 0.95 }]
        [[event]]
        at_ms = 5000
        path = "fast"
        faults = [{ kind = "stall" }]
        [[event]]
        at_ms = 8000
        faults = []
    "#;

    #[test]
    fn a_file_names_paths_and_what_happens_to_them() {
        let plan = Plan::from_toml(GOOD).unwrap();
        assert_eq!((plan.seed, plan.paths.len(), plan.events.len()), (7, 2, 2));
        assert_eq!(plan.paths[0].node, "127.0.0.1:7410".parse().unwrap());
        assert_eq!(plan.events[1].faults, Some(Vec::new()));
    }

    #[test]
    fn all_that_makes_no_sense_is_told_at_once() {
        let bad = GOOD
            .replace("\"slow\"", "\"fast\"")
            .replace("20.0", "-1.0")
            .replace("at_share = 0.95", "at_share = 95")
            .replace("path = \"fast\"", "path = \"quick\"");
        let PlanError::Senseless(complaints) = Plan::from_toml(&bad).unwrap_err() else {
            panic!("it can be read");
        };
        let fields: Vec<&str> = complaints
            .iter()
            .map(|complaint| complaint.field.as_str())
            .collect();
        let expected = [
            "path[0].profile.down_mbps",
            "path[1].name",
            "path[1].faults[0].at_share",
            "event[0].path",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_its_line() {
        for (from, to) in [
            ("seed", "sead"),
            ("\"stall\"", "\"melt\""),
            ("http://127.0.0.1:7410", "node-1:7410"),
        ] {
            let PlanError::Unreadable(text) = Plan::from_toml(&GOOD.replacen(from, to, 1)).unwrap_err()
            else {
                panic!("{to} was read");
            };
            assert!(text.contains("line "), "{text}");
        }
    }
}
