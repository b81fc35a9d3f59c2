//! A layer's section of the page: gates, a row a scenario and contestant as medians over the rounds, and a picture.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use vstack_charts::{ChartTheme, LineChart, NODE_COLORS, Series, line_chart};
use vstack_client::PolicyName;

use super::{Layer, Played, Row};
use crate::client::gates::{FAULT_RATIO, STARTUP_RATIO, STEADY_RATIO, WASTE_PERCENT, WORSE, row as gate};
use crate::client::section;
use crate::machine::{Machine, load_average};
use crate::report::median;

const ARIA2: &str = "aria2";

/// All rounds of one contestant in one scenario.
type Group<'a> = Vec<&'a Row>;

pub(super) fn write(page: &Path, work: &Path, layer: Layer, played: &Played) -> Result<()> {
    let name = match layer {
        Layer::Sockets => "sockets",
        Layer::Netns => "netns",
    };
    let stem = page
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("client");
    let mut lines = String::new();
    for row in &played.rows {
        writeln!(lines, "{}", serde_json::to_string(row)?)?;
    }
    let sheet = Sheet::new(&played.rows);
    let picture = format!("{stem}-{name}.svg");
    section::put(
        page,
        name,
        &sheet.section(layer, work, played.busy_percent, &picture)?,
    )?;
    std::fs::write(page.with_file_name(format!("{stem}-{name}.jsonl")), lines)
        .context("cannot write the figures")?;
    std::fs::write(page.with_file_name(&picture), sheet.picture()).context("cannot draw the picture")
}

fn intro(layer: Layer) -> &'static str {
    match layer {
        Layer::Sockets => {
            "## On real sockets: our nodes behind emulated paths\n\nReal sessions of the client against real storage nodes on \
             loopback; each path has a bandwidth, a delay and faults (`crates/vstack-emulator`). Everything of a video of \
             2 MB chunks is fetched as fast as it comes, three copies of each or shards 3+2, and every byte is compared with \
             the source."
        }
        Layer::Netns => {
            "## In network namespaces: nginx behind `tc tbf`, beside aria2\n\nEach node is an nginx in a network namespace of \
             its own, whose line the kernel shapes; nothing of ours is between. There is no delay beside the queue's (up to \
             100 ms). aria2 fetches one file of all chunks from the same nodes as mirrors, in order, in pieces of 1 MiB; it \
             knows no hashes of pieces, which plain HTTP does not give it."
        }
    }
}

/// Rows, grouped.
struct Sheet<'a> {
    groups: Vec<Group<'a>>,
}

impl<'a> Sheet<'a> {
    /// In the order in which scenarios and contestants came.
    fn new(rows: &'a [Row]) -> Self {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for row in rows {
            let same = |group: &&mut Group<'a>| {
                group
                    .first()
                    .is_some_and(|first| (first.id, &first.contestant) == (row.id, &row.contestant))
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
        Self { groups }
    }

    fn section(&self, layer: Layer, work: &Path, busy_percent: f64, picture: &str) -> Result<String> {
        let machine = Machine::here(work);
        let command =
            std::env::var("VSTACK_BENCH_COMMAND").unwrap_or_else(|_| "cargo xtask bench client".to_owned());
        let mut text = format!("{}\n\n", intro(layer));
        writeln!(
            text,
            "`{command}`, {}, commit {}, {} cores ({}), load {} at the end; clients{} used {busy_percent:.0} % of the \
             processors. Figures are medians over {} rounds; the lines move on by one node each round. The bound is a \
             fluid that knows the future: every line full after one round trip, nothing twice. \"Simulated\" is the same \
             scenario, round and policy in virtual time, against the simulator's own bound.\n",
            machine.date,
            machine.commit,
            machine.cores,
            machine.processor,
            load_average(),
            if layer == Layer::Sockets { " and nodes" } else { "" },
            self.groups.iter().map(Vec::len).max().unwrap_or(0),
        )?;
        text += &self.gates();
        writeln!(text, "\n![times as multiples of the bound]({picture})\n")?;
        text += &self.table();
        if layer == Layer::Netns {
            text += &self.beside_aria2();
        }
        Ok(text)
    }

    fn of<'b>(&'b self, contestant: &'b str) -> impl Iterator<Item = &'b Group<'a>> {
        self.groups
            .iter()
            .filter(move |group| group.first().is_some_and(|row| row.contestant == contestant))
    }

    fn gates(&self) -> String {
        let mut text = "| gate | scenario | figure | |\n|---|---|---|---|\n".to_owned();
        let pool = PolicyName::Pool.as_str();
        for group in self.of(pool) {
            let Some(first) = group.first() else { continue };
            let limit = if first.has_fault {
                FAULT_RATIO
            } else {
                STEADY_RATIO
            };
            let name = format!("{} {}", first.id, first.scenario);
            let ratio = middle(group, Row::ratio).unwrap_or(f64::INFINITY);
            text += &gate(
                &format!("time at most {limit:.2}x the bound"),
                &name,
                &format!("{ratio:.2}"),
                ratio <= limit,
            );
            if !first.has_fault {
                let ratio = middle(group, |row| Some(row.startup_s? / row.startup_bound_s()));
                let ratio = ratio.unwrap_or(f64::INFINITY);
                text += &gate(
                    &format!("start-up at most {STARTUP_RATIO:.2}x its bound"),
                    &name,
                    &format!("{ratio:.2}"),
                    ratio <= STARTUP_RATIO,
                );
            }
        }
        let worst = self
            .of(pool)
            .flatten()
            .max_by(|a, b| a.wasted_percent.total_cmp(&b.wasted_percent));
        if let Some(worst) = worst {
            text += &gate(
                &format!("waste at most {WASTE_PERCENT:.0} %"),
                &format!("worst run: {} {}", worst.id, worst.scenario),
                &format!("{:.2} %", worst.wasted_percent),
                worst.wasted_percent <= WASTE_PERCENT,
            );
        }
        let ours = || self.groups.iter().flatten().filter(|row| row.contestant != ARIA2);
        let wrong = ours().filter(|row| !row.right).count();
        text += &gate(
            "runs of ours with wrong bytes: 0",
            &format!("all {}", ours().count()),
            &wrong.to_string(),
            wrong == 0,
        );
        text + &self.slow_node()
    }

    /// What a slow third node does.
    fn slow_node(&self) -> String {
        let pool = PolicyName::Pool.as_str();
        let find = |id| {
            self.of(pool)
                .find(|group| group.first().is_some_and(|row| row.id == id))
        };
        let (Some(with), Some(without)) = (find("B1b"), find("B1a")) else {
            return String::new();
        };
        let worsened = |what: &str, of: fn(&Row) -> Option<f64>| {
            let ratio = middle(with, of)? / middle(without, of)?;
            Some(gate(
                "a slow third node worsens nothing by more than 2 %",
                what,
                &format!("{ratio:.3}"),
                ratio <= WORSE,
            ))
        };
        let time = worsened("time", |row| row.took_s);
        let startup = worsened("start-up", |row| row.startup_s);
        [time, startup].into_iter().flatten().collect()
    }

    fn table(&self) -> String {
        let mut text =
            "| scenario | bound s | contestant | whole s | x bound | simulated | begins after s | simulated | bound | first chunk s | bound | \
             waste % | requests per chunk | refused | slowest to see ms | bytes |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for group in &self.groups {
            text += &line(group);
        }
        text
    }

    /// Time of each policy as a multiple of aria2's, in the same round.
    fn beside_aria2(&self) -> String {
        let mut text =
            "\n### Beside aria2\n\nTime as a multiple of the bound, and the pool's as a share of aria2's in the same round.\n\n\
             | scenario | pool x bound | aria2 x bound | pool / aria2 | aria2's file |\n|---|---|---|---|---|\n"
                .to_owned();
        for group in self.of(ARIA2) {
            let Some(first) = group.first() else { continue };
            let pool = self
                .of(PolicyName::Pool.as_str())
                .find(|pool| pool.first().is_some_and(|row| row.id == first.id));
            let Some(pool) = pool else { continue };
            // A file that is wrong was not fetched in any time.
            let pairs = pool.iter().zip(group).filter(|(_, theirs)| theirs.right);
            let shares: Vec<f64> = pairs
                .filter_map(|(ours, theirs)| Some(ours.took_s? / theirs.took_s?))
                .collect();
            let share = (!shares.is_empty()).then(|| median(shares));
            let _ = writeln!(
                text,
                "| {} {} | {} | {} | {} | {} |",
                first.id,
                first.scenario,
                shown(middle(pool, Row::ratio), 2),
                shown(middle(group, Row::ratio), 2),
                shown(share, 2),
                bytes(group),
            );
        }
        text
    }

    /// Ratio to the bound, scenario after scenario.
    fn picture(&self) -> String {
        let mut ids: Vec<&str> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for row in self.groups.iter().filter_map(|group| group.first()) {
            if !ids.contains(&row.id) {
                ids.push(row.id);
            }
            if !names.contains(&row.contestant.as_str()) {
                names.push(&row.contestant);
            }
        }
        let ratio_of = |name: &str, id: &str| {
            let group = self
                .of(name)
                .find(|group| group.first().is_some_and(|row| row.id == id));
            group
                .and_then(|group| middle(group, Row::ratio))
                .unwrap_or(f64::NAN)
        };
        let series = names.iter().zip(NODE_COLORS).map(|(name, stroke)| Series {
            name: (*name).to_owned(),
            stroke,
            points: (1..)
                .zip(&ids)
                .map(|(place, id)| (f64::from(place), ratio_of(name, id)))
                .collect(),
        });
        line_chart(&LineChart {
            title: "Time as a multiple of the bound".to_owned(),
            x_label: "scenario, in the table's order".to_owned(),
            y_label: "x bound".to_owned(),
            width_px: 800,
            height_px: 360,
            theme: ChartTheme::LIGHT,
            series: series.collect(),
        })
    }
}

fn middle(rows: &[&Row], of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
    (!values.is_empty()).then(|| median(values))
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Whether what came is what was asked for.
fn bytes(rows: &[&Row]) -> String {
    let given_up = rows.iter().filter(|row| row.took_s.is_none()).count();
    match (given_up, rows.iter().all(|row| row.right)) {
        (0, true) => "right".to_owned(),
        (0, false) => "**WRONG**".to_owned(),
        (given_up, _) => format!("given up {given_up} of {}", rows.len()),
    }
}

fn line(rows: &[&Row]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let detect = rows.iter().filter_map(|row| row.detect_ms).max();
    // Another program's requests are not seen.
    let told = |value: f64| (first.contestant != ARIA2).then_some(value);
    let refused = (first.contestant != ARIA2).then(|| rows.iter().map(|row| row.hash_failures).sum::<u64>());
    let whole = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    format!(
        "| {} {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        first.id,
        first.scenario,
        shown(middle(rows, |row| Some(row.bound.whole_s)), 2),
        first.contestant,
        shown(middle(rows, |row| row.took_s), 1),
        shown(middle(rows, Row::ratio), 2),
        shown(middle(rows, |row| Some(row.simulated?.ratio)), 2),
        shown(middle(rows, |row| row.startup_s), 2),
        shown(middle(rows, |row| row.simulated?.startup_s), 2),
        shown(middle(rows, |row| Some(row.startup_bound_s())), 2),
        shown(middle(rows, |row| row.first_chunk_s), 2),
        shown(middle(rows, |row| Some(row.bound.first_chunk_s)), 2),
        shown(middle(rows, |row| told(row.wasted_percent)), 1),
        shown(middle(rows, |row| told(row.requests_per_chunk)), 1),
        whole(refused),
        whole(detect),
        bytes(rows),
    )
}
