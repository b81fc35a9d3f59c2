//! The page of the client's bench: gates, tables, pictures.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use vstack_charts::{ChartTheme, LineChart, NODE_COLORS, Series, line_chart};

use super::figures::Figures;
use super::gates::{self, CROWD_STARTUP_SEC, FAULT_RATIO, STARTUP_RATIO, STEADY_RATIO, WASTE_PERCENT, WORSE};
use super::scenarios::{CROWD, POOL, POOL_WHOLE, SEED};
use super::section;
use crate::load::percentile;

#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) single: &'a [Figures],
    pub(crate) crowds: &'a [Figures],
    pub(crate) seeds: u64,
    pub(crate) crowd_seeds: u64,
}

impl Page<'_> {
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        section::put(path, "sim", &self.markdown())?;
        write(&path.with_file_name("client-bulk.svg"), &self.bulk_picture())?;
        write(&path.with_file_name("client-crowd.svg"), &self.crowd_picture())
    }

    pub(crate) fn markdown(&self) -> String {
        let mut page = format!(
            "## In virtual time\n\n`{}`\n\nThe client's own policies over \
             a fluid model of nodes and TCP (`crates/vstack-netsim`), {} seeds each ({} for crowds), the order of the nodes \
             drawn anew by each. Nothing here depends on the machine. The bound is perfect foresight with TCP's slow start: \
             no policy can reach 1.00. A video of 5 minutes at 1.6 Mbit/s in chunks of 2 MB and 10 s, three copies of each, \
             or shards 3+2; bulk means as fast as possible. `pool` starts from 512 KiB and is measured against the bound for that; \
             the others start from a whole chunk. Ranges on sockets cost what the model leaves out: loss, queues, processor time.\n\n",
            std::env::var("VSTACK_BENCH_COMMAND").unwrap_or_else(|_| "cargo xtask bench client".to_owned()),
            self.seeds,
            self.crowd_seeds
        );
        page += &self.gates();
        page += "\n### As fast as possible\n\n![times as multiples of the bound](client-bulk.svg)\n\n";
        page += &self.bulk_table();
        page += "\n### Played\n\n";
        page += &self.played_table();
        if !self.crowds.is_empty() {
            page += "\n### Crowds\n\n![start-up times of 100 viewers](client-crowd.svg)\n\n";
            page += &self.crowd_table();
        }
        page
    }

    fn gates(&self) -> String {
        let mut text = "### Gates\n\n| gate | scenario | figure | |\n|---|---|---|---|\n".to_owned();
        let mut row = |gate: &str, scenario: &str, figure: String, met: bool| {
            text += &gates::row(gate, scenario, &figure, met);
        };
        for figures in self.of(POOL) {
            let (id, ratio) = (&figures.scenario.name, figures.done_ratio());
            let faulty = figures.scenario.fault_sec.is_some();
            let limit = if faulty { FAULT_RATIO } else { STEADY_RATIO };
            if figures.scenario.bulk {
                row(
                    &format!("time at most {limit:.2}x the bound"),
                    id,
                    format!("{ratio:.2}"),
                    ratio <= limit,
                );
            } else if !faulty && figures.scenario.noise == 0.0 {
                let ratio = figures.mean_startup() / figures.startup_bound();
                let gate = format!("start-up at most {STARTUP_RATIO:.2}x its bound");
                row(&gate, id, format!("{ratio:.2}"), ratio <= STARTUP_RATIO);
            }
        }
        let worst = self
            .of(POOL)
            .max_by(|a, b| a.waste_percent().total_cmp(&b.waste_percent()));
        if let Some(worst) = worst {
            let waste = worst.waste_percent();
            let gate = format!("waste at most {WASTE_PERCENT:.0} %");
            row(
                &gate,
                &format!("worst: {}", worst.scenario.name),
                format!("{waste:.2} %"),
                waste <= WASTE_PERCENT,
            );
        }
        let wrong: u32 = self.single.iter().map(Figures::wrong_delivered).sum();
        row("wrong bytes delivered: 0", "all", wrong.to_string(), wrong == 0);
        for crowd in self.crowds.iter().filter(|figures| figures.policy == CROWD) {
            let (name, startup_sec) = (&crowd.scenario.name, crowd.startup(0.95));
            let gate = format!("95 of 100 of a crowd begin within {CROWD_STARTUP_SEC} s");
            let met = startup_sec <= CROWD_STARTUP_SEC;
            row(&gate, name, format!("{startup_sec:.2} s"), met);
            let stalled = crowd.stalled_percent();
            row(
                "no viewer of a crowd stalls",
                name,
                format!("{stalled:.1} %"),
                stalled == 0.0,
            );
        }
        for (what, with, without) in self.slow_node() {
            let ratio = with / without;
            row(
                "a slow third node worsens nothing by more than 2 %",
                what,
                format!("{ratio:.3}"),
                ratio <= WORSE,
            );
        }
        text
    }

    /// What a slow third node does: with it, and without.
    fn slow_node(&self) -> Vec<(&'static str, f64, f64)> {
        let find = |id: &str, bulk: bool| {
            self.of(POOL)
                .find(|figures| figures.scenario.id == id && figures.scenario.bulk == bulk)
        };
        let mut pairs = Vec::new();
        if let (Some(with), Some(without)) = (find("B1b", false), find("B1a", false)) {
            pairs.push(("start-up", with.mean_startup(), without.mean_startup()));
            let reserve = |figures: &Figures| 1.0 / figures.mean(|outcome| outcome.avg_buffer_sec);
            pairs.push(("average buffer, inverse", reserve(with), reserve(without)));
        }
        if let (Some(with), Some(without)) = (find("B1b", true), find("B1a", true)) {
            pairs.push(("time, bulk", with.done(), without.done()));
        }
        pairs
    }

    fn of<'a>(&'a self, policy: &'a str) -> impl Iterator<Item = &'a Figures> {
        self.single.iter().filter(move |figures| figures.policy == policy)
    }

    fn bulk_table(&self) -> String {
        let mut table = "| scenario | policy | first chunk s | s | x bound | waste % | requests per chunk | seen after s |\n\
                         |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for figures in self.single.iter().filter(|figures| figures.scenario.bulk) {
            let _ = writeln!(
                table,
                "| {} | {} | {:.2} | {:.1} | {:.2} | {:.2} | {:.1} | {} |",
                figures.scenario.name,
                figures.policy,
                figures.mean_startup(),
                figures.done(),
                figures.done_ratio(),
                figures.waste_percent(),
                figures.requests_per_chunk(),
                figures
                    .detect()
                    .map_or_else(String::new, |seconds| format!("{seconds:.2}")),
            );
        }
        table
    }

    fn played_table(&self) -> String {
        let mut table = "| scenario | policy | start-up s | x bound | stalls | stalled s | buffer s: mean | 5 % | least | waste % | \
                         requests per chunk | seek p50 / p95 s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for figures in self.single.iter().filter(|figures| !figures.scenario.bulk) {
            let seeks = figures.seeks();
            let seeks = if seeks.is_empty() {
                String::new()
            } else {
                format!("{:.2} / {:.2}", percentile(&seeks, 0.5), percentile(&seeks, 0.95))
            };
            let least = figures
                .outcomes
                .iter()
                .map(|outcome| outcome.min_buffer_sec)
                .fold(f64::MAX, f64::min);
            let _ = writeln!(
                table,
                "| {} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} | {least:.1} | {:.2} | {:.1} | {seeks} |",
                figures.scenario.name,
                figures.policy,
                figures.mean_startup(),
                figures.mean_startup() / figures.startup_bound(),
                figures.mean(|outcome| f64::from(outcome.stalls)),
                figures.mean(|outcome| outcome.stall_sec),
                figures.mean(|outcome| outcome.avg_buffer_sec),
                figures.mean(|outcome| outcome.p5_buffer_sec),
                figures.waste_percent(),
                figures.requests_per_chunk(),
            );
        }
        table
    }

    fn crowd_table(&self) -> String {
        let mut table = "Pool with start from 512 KiB. `24:8:2:1` are the node's weights for answers that are needed within 2.5 s, within 6 s, \
                         within 12 s and later; an answer counts up to 65 times as much towards its end, but where the name says \
                         otherwise. Without weights every answer counts the same. Pace is the multiple of the bitrate at which a client asks \
                         above 10 s in store. Good: began within 2 s and never stalled.\n\n\
                         | scenario | policy | start-up p50 s | p95 s | stalled % | stall s | good % | buffer s | waste % | requests per chunk | \
                         fairness |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for figures in self.crowds {
            let _ = writeln!(
                table,
                "| {} | {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} | {:.1} | {:.2} | {:.1} | {:.2} |",
                figures.scenario.name,
                figures.policy,
                figures.startup(0.5),
                figures.startup(0.95),
                figures.stalled_percent(),
                figures.mean(|outcome| outcome.stall_sec),
                figures.good_percent(),
                figures.mean(|outcome| outcome.avg_buffer_sec),
                figures.waste_percent(),
                figures.requests_per_chunk(),
                figures.fairness(),
            );
        }
        table
    }

    /// Ratio to the bound, scenario after scenario.
    fn bulk_picture(&self) -> String {
        let shown = [SEED, POOL_WHOLE, POOL];
        let series = shown.iter().zip(NODE_COLORS).map(|(policy, stroke)| {
            let ratios = self.of(policy).filter(|figures| figures.scenario.bulk);
            Series {
                name: (*policy).to_owned(),
                stroke,
                points: (1..)
                    .zip(ratios)
                    .map(|(place, figures)| (f64::from(place), figures.done_ratio()))
                    .collect(),
            }
        });
        chart(
            "Time as a multiple of the bound",
            "scenario, in the table's order",
            "x bound",
            series.collect(),
        )
    }

    /// How many viewers of the first crowd have begun by a time.
    fn crowd_picture(&self) -> String {
        let Some(first) = self.crowds.first() else {
            return chart("No crowds were run", "s", "share", Vec::new());
        };
        let of_first = self
            .crowds
            .iter()
            .filter(|figures| figures.scenario.name == first.scenario.name);
        let series = of_first.step_by(2).zip(NODE_COLORS).map(|(figures, stroke)| {
            let startups = figures.startups();
            let count = startups.len() as f64;
            Series {
                name: figures.policy.clone(),
                stroke,
                points: (1..)
                    .zip(startups)
                    .map(|(place, at)| (at.min(20.0), f64::from(place) / count))
                    .collect(),
            }
        });
        chart(
            &first.scenario.name,
            "seconds since arrival",
            "share that has begun",
            series.collect(),
        )
    }
}

fn chart(title: &str, x_label: &str, y_label: &str, series: Vec<Series>) -> String {
    line_chart(&LineChart {
        title: title.to_owned(),
        x_label: x_label.to_owned(),
        y_label: y_label.to_owned(),
        width_px: 800,
        height_px: 360,
        theme: ChartTheme::LIGHT,
        series,
    })
}
