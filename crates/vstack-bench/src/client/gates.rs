//! What the product promises of the client: the same for every layer.

/// Of a steady cluster and of one fault, as ratio to the bound.
pub(crate) const STEADY_RATIO: f64 = 1.10;
pub(crate) const FAULT_RATIO: f64 = 1.25;
pub(crate) const STARTUP_RATIO: f64 = 1.25;
/// With hedging; percent.
pub(crate) const WASTE_PERCENT: f64 = 5.0;
/// Adding a slow node may worsen nothing by more than this.
pub(crate) const WORSE: f64 = 1.02;
/// For 95 of 100 viewers of a crowd.
pub(crate) const CROWD_STARTUP_SEC: f64 = 2.0;

/// A row of the table of gates.
pub(crate) fn row(gate: &str, scenario: &str, figure: &str, met: bool) -> String {
    let verdict = if met { "met" } else { "**missed**" };
    format!("| {gate} | {scenario} | {figure} | {verdict} |\n")
}
