//! The layer test: which crate of the workspace may know which.
//!
//! The table is the one of `crates/README.md`. An arrow that it does not have fails the check; so does a crate that it
//! does not name. Arrows of tests may go to any crate that stands above in the table: a test may need a real peer.

use serde_json::Value;

/// From the top: a crate, and what it may know beside [`CORE`].
const TABLE: [(&str, &[&str]); 18] = [
    ("vstack-core", &[]),
    ("vstack-erasure", &[]),
    ("vstack-api", &[]),
    ("vstack-store", &[]),
    ("vstack-meta", &[]),
    ("vstack-media", &[]),
    ("vstack-charts", &[]),
    ("vstack-emulator", &[]),
    ("vstack-proof", &["vstack-store"]),
    ("vstack-client", &["vstack-api", "vstack-erasure"]),
    ("vstack-netsim", &["vstack-api", "vstack-client"]),
    (
        "vstack-server",
        &[
            "vstack-erasure",
            "vstack-api",
            "vstack-store",
            "vstack-meta",
            "vstack-media",
            "vstack-charts",
            "vstack-emulator",
            "vstack-client",
        ],
    ),
    (
        "vstack-sim",
        &[
            "vstack-store",
            "vstack-meta",
            "vstack-client",
            "vstack-server",
            "vstack-api",
            "vstack-erasure",
        ],
    ),
    // What only tests need (a simulated network) must not come into the product by way of `vstack-sim`.
    (
        "vstack-turmoil",
        &[
            "vstack-erasure",
            "vstack-api",
            "vstack-store",
            "vstack-meta",
            "vstack-server",
        ],
    ),
    // Benches drive real processes, and what has no process of its own through its crate.
    (
        "vstack-bench",
        &[
            "vstack-erasure",
            "vstack-api",
            "vstack-store",
            "vstack-emulator",
            "vstack-client",
            "vstack-server",
            "vstack-sim",
            "vstack-netsim",
            "vstack-charts",
        ],
    ),
    // The thin shell around the roles and the client speaks their types, so it names the crates that define them.
    (
        "vstack-node-server",
        &[
            "vstack-server",
            "vstack-client",
            "vstack-sim",
            "vstack-api",
            "vstack-emulator",
            "vstack-media",
        ],
    ),
    ("vstack-player", &["vstack-client", "vstack-api", "vstack-charts"]),
    (XTASK, &[]),
];

const CORE: &str = "vstack-core";
const XTASK: &str = "xtask";

/// One line for each arrow that is not allowed, given `cargo metadata`.
pub(crate) fn complaints(metadata: &Value) -> Vec<String> {
    let members: Vec<&str> = strings(&metadata["workspace_members"]);
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let ours: Vec<&Value> = packages
        .filter(|package| package["id"].as_str().is_some_and(|id| members.contains(&id)))
        .collect();
    let names: Vec<&str> = ours
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let arrows = ours.iter().flat_map(|package| arrows_of(package, &names));
    let strangers = names
        .iter()
        .filter(|name| row(name).is_none())
        .map(|name| format!("{name} is not in the table of layers"));
    arrows
        .filter(|arrow| !allowed(arrow))
        .map(|arrow| arrow.complaint())
        .chain(strangers)
        .collect()
}

struct Arrow<'a> {
    from: &'a str,
    to: &'a str,
    in_tests: bool,
}

impl Arrow<'_> {
    fn complaint(&self) -> String {
        let kind = if self.in_tests { "a test of " } else { "" };
        format!(
            "{kind}{} must not know {}: the table of layers has no such arrow",
            self.from, self.to
        )
    }
}

fn arrows_of<'a>(package: &'a Value, names: &[&str]) -> Vec<Arrow<'a>> {
    let from = package["name"].as_str().unwrap_or_default();
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let arrow = |dependency: &'a Value| {
        let to = dependency["name"].as_str()?;
        // A crate's tests may ask for a feature of the crate itself.
        (to != from && names.contains(&to)).then(|| Arrow {
            from,
            to,
            in_tests: dependency["kind"] == "dev",
        })
    };
    dependencies.filter_map(arrow).collect()
}

fn allowed(arrow: &Arrow<'_>) -> bool {
    let Some(position) = row(arrow.from) else {
        return false;
    };
    if arrow.in_tests {
        return row(arrow.to).is_some_and(|target| target < position);
    }
    let knows_core = arrow.to == CORE && arrow.from != XTASK;
    knows_core
        || TABLE
            .get(position)
            .is_some_and(|(_, may_know)| may_know.contains(&arrow.to))
}

fn row(name: &str) -> Option<usize> {
    TABLE.iter().position(|(crate_name, _)| *crate_name == name)
}

fn strings(array: &Value) -> Vec<&str> {
    array
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A crate, and the crates it depends on, with cargo's kind of each dependency.
    type Crate<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

    fn workspace(packages: &[Crate<'_>]) -> Value {
        let package = |(name, dependencies): &Crate<'_>| {
            let dependencies: Vec<Value> = dependencies
                .iter()
                .map(|(name, kind)| json!({"name": name, "kind": kind}))
                .collect();
            json!({"id": name, "name": name, "dependencies": dependencies})
        };
        let ids: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
        json!({"workspace_members": ids, "packages": packages.iter().map(package).collect::<Vec<_>>()})
    }

    #[test]
    fn an_arrow_of_the_table_passes_and_another_one_does_not() {
        let good = workspace(&[
            ("vstack-core", &[("serde", None)]),
            ("vstack-api", &[("vstack-core", None)]),
            ("vstack-client", &[("vstack-core", None), ("vstack-api", None)]),
        ]);
        assert!(complaints(&good).is_empty());
        let bad = workspace(&[("vstack-core", &[("vstack-api", None)]), ("vstack-api", &[])]);
        assert_eq!(complaints(&bad).len(), 1);
    }

    #[test]
    fn the_player_links_no_server_code_and_xtask_links_nothing_of_ours() {
        let player = workspace(&[
            ("vstack-server", &[]),
            ("vstack-player", &[("vstack-server", None)]),
        ]);
        assert_eq!(complaints(&player).len(), 1);
        let xtask = workspace(&[("vstack-core", &[]), ("xtask", &[("vstack-core", None)])]);
        assert_eq!(complaints(&xtask).len(), 1);
    }

    #[test]
    fn tests_may_use_what_stands_above_and_never_what_stands_below() {
        let up = workspace(&[
            ("vstack-emulator", &[]),
            ("vstack-client", &[("vstack-emulator", Some("dev"))]),
        ]);
        assert!(complaints(&up).is_empty());
        let down = workspace(&[
            ("vstack-core", &[("vstack-client", Some("dev"))]),
            ("vstack-client", &[]),
        ]);
        assert_eq!(complaints(&down).len(), 1);
    }

    #[test]
    fn a_crate_that_nobody_entered_in_the_table_is_named() {
        let complaints = complaints(&workspace(&[("vstack-new", &[])]));
        assert_eq!(complaints, ["vstack-new is not in the table of layers"]);
    }
}
