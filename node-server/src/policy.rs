//! `vstack policy explain|simulate|cost`, and `vstack status --durability`.

use vstack_api::MetadataClient;
use vstack_api::policy::{
    DurabilityQuery, DurabilityReport, ModeCost, PolicyExplanation, PolicyQuery, PolicyReport,
};
use vstack_core::cost::{Change, Cost, Outcome};
use vstack_core::durability::ModeFigures;
use vstack_core::node_name::label;
use vstack_core::time::UnixMillis;

use crate::args::{Place, PolicyCommand};
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, table};

/// Videos that a table of changes names; `--json` names all.
const CHANGES_SHOWN: usize = 20;

pub(crate) async fn run(command: PolicyCommand, place: &Place, output: &Output) -> Result<(), Failure> {
    let catalogue = cluster::catalogue(place);
    match command {
        PolicyCommand::Explain { video } => {
            let video = cluster::find_video(&catalogue, &video).await?;
            let explanation = catalogue.explain_policy(video).await?;
            output.say(&explanation, || explained(&explanation));
        }
        PolicyCommand::Simulate { threshold } => {
            let report = catalogue.policy(PolicyQuery { hot_above: threshold }).await?;
            output.say(&report, || simulated(&report));
        }
        PolicyCommand::Cost => {
            let report = catalogue.policy(PolicyQuery::default()).await?;
            output.say(&report, || costs(&report));
        }
    }
    Ok(())
}

pub(crate) async fn durability(
    catalogue: &MetadataClient,
    query: DurabilityQuery,
    output: &Output,
) -> Result<(), Failure> {
    let report = catalogue.durability(query).await?;
    output.say(&report, || lasting(&report));
    Ok(())
}

fn explained(video: &PolicyExplanation) -> String {
    let from_now = |time: UnixMillis| span(time.since(UnixMillis(video.now_ms)));
    let forecast = &video.forecast;
    let mut next = vec![format!(
        "ends up {} if its views stay as they are: {}",
        forecast.settled,
        forecast.settled_why.sentence()
    )];
    if let Some(time) = forecast.cold_at {
        next.push(format!(
            "cold in {} if nobody watches it any more",
            from_now(time)
        ));
    }
    if forecast.views_to_hot > 0.0 {
        next.push(format!(
            "hot after {:.0} more views at once",
            forecast.views_to_hot.ceil()
        ));
    }
    if let Some(time) = forecast.young_until {
        next.push(format!("new for another {}", from_now(time)));
    }
    if let Some(time) = forecast.rests_until {
        next.push(format!("not converted again for another {}", from_now(time)));
    }
    format!(
        "{}\n  now         {} (chosen: {})\n  wanted      {}: {}\n  views       {:.1} count of {} (half of a view after {}), \
         about {:.1} a day\n  lines       hot above {}, cold below {}\n  age         {}\n  cluster     {} nodes take parts, \
         {:.0} % of their room is in use\n  next        {}\n\n{}",
        video.title,
        video.mode,
        video.choice.as_str(),
        video.wanted,
        video.reason,
        video.popularity,
        video.views,
        span(video.view_half_life_ms),
        video.views_per_day,
        video.hot_above,
        video.cold_below,
        span(video.age_ms),
        video.nodes,
        video.used_share * 100.0,
        next.join("\n              "),
        modes(&video.modes)
    )
}

fn modes(modes: &[ModeCost]) -> String {
    let row = |mode: &ModeCost| {
        vec![
            mode.mode.clone(),
            table::size(mode.stored_bytes),
            mode.requests_per_chunk.to_string(),
            format!("{} bytes a byte", mode.repair_reads_per_byte),
            format!("{:.2} h", mode.repair_hours),
            years(mode.durability.mttdl_years),
            format!("{:.1}", mode.durability.nines_a_year),
        ]
    };
    table::table(
        &[
            "mode",
            "stored",
            "requests a chunk",
            "repair reads",
            "repaired in",
            "MTTDL of a chunk",
            "nines a year",
        ],
        &modes.iter().map(row).collect::<Vec<_>>(),
    )
}

fn simulated(report: &PolicyReport) -> String {
    let asked = report.asked.as_ref().unwrap_or(&report.settled);
    let mut rows = vec![row_of("as stored now", &report.now)];
    rows.push(row_of(
        &format!("threshold {} (set)", report.settled.hot_above),
        &report.settled.cost,
    ));
    if let Some(asked) = &report.asked {
        rows.push(row_of(
            &format!("threshold {} (asked)", asked.hot_above),
            &asked.cost,
        ));
    }
    format!(
        "{}\n\n{}\n\nwhat other thresholds would store\n{}",
        cost_table("library", &rows),
        changes(asked),
        thresholds(report)
    )
}

/// One line for each library that could be, named in the column `of`.
fn cost_table(of: &str, rows: &[Vec<String>]) -> String {
    let columns = [
        of,
        "copies",
        "shards",
        "stored",
        "a byte takes",
        "saved",
        "of 3 copies",
        "read",
        "requests",
    ];
    table::table(&columns, rows)
}

fn row_of(name: &str, cost: &Cost) -> Vec<String> {
    vec![
        name.to_owned(),
        cost.replicated_videos.to_string(),
        cost.erasure_videos.to_string(),
        table::size(cost.stored_bytes),
        format!("{:.2}", cost.stored_per_byte),
        table::size(cost.saved_bytes),
        format!("{:.1} %", cost.saved_share * 100.0),
        rate(cost.read_bytes_per_second),
        format!("{:.2}/s", cost.read_requests_per_second),
    ]
}

fn changes(outcome: &Outcome) -> String {
    if outcome.changes.is_empty() {
        return format!("threshold {} converts nothing", outcome.hot_above);
    }
    let row = |change: &Change| {
        let sign = if change.stored_bytes_change < 0 { "-" } else { "+" };
        vec![
            change.title.clone(),
            format!("{:.1}", change.popularity),
            format!("{} to {}", change.from, change.to),
            format!("{sign}{}", table::size(change.stored_bytes_change.unsigned_abs())),
            change.why.sentence().to_owned(),
        ]
    };
    let shown = outcome.changes.iter().take(CHANGES_SHOWN);
    let more = outcome.changes.len().saturating_sub(CHANGES_SHOWN);
    let rest = if more > 0 {
        format!("\n... and {more} more (--json names all)")
    } else {
        String::new()
    };
    format!(
        "threshold {} converts {} videos\n{}{rest}",
        outcome.hot_above,
        outcome.changes.len(),
        table::table(
            &["video", "views", "from and to", "stored", "why"],
            &shown.map(row).collect::<Vec<_>>()
        )
    )
}

fn thresholds(report: &PolicyReport) -> String {
    let rows = report
        .thresholds
        .iter()
        .map(|step| row_of(&format!("{}", step.hot_above), &step.cost));
    cost_table("threshold", &rows.collect::<Vec<_>>())
}

fn costs(report: &PolicyReport) -> String {
    let rows = [
        row_of("as stored now", &report.now),
        row_of("when all is converted", &report.settled.cost),
    ];
    let loads: Vec<Vec<String>> = report
        .node_loads
        .iter()
        .map(|node| {
            vec![
                label(node.name.as_deref(), node.load.node_id),
                table::size(node.load.copies_bytes),
                table::size(node.load.shards_bytes),
                rate(node.load.read_bytes_per_second),
                format!("{:.2}/s", node.load.read_requests_per_second),
                table::size(node.load.repair_read_bytes()),
            ]
        })
        .collect();
    format!(
        "{}\n\nexpected reads of each node, where a view is a whole video and a view counts half after {}\n{}\n\nthe whole \
         library in one mode, repaired at {} ({})\n{}\n\nwhat other thresholds would store\n{}",
        cost_table("library", &rows),
        span(report.view_half_life_ms),
        table::table(
            &["node", "copies", "shards", "read", "requests", "its repair reads"],
            &loads
        ),
        rate(report.repair.facts.bytes_per_second),
        source(report.repair.speed_source),
        modes(&report.modes),
        thresholds(report)
    )
}

const fn source(source: vstack_api::policy::SpeedSource) -> &'static str {
    use vstack_api::policy::SpeedSource::{Assumed, Conversions, Repairs};
    match source {
        Repairs => "measured on repairs",
        Conversions => "measured on conversions",
        Assumed => "assumed, nothing was measured yet",
    }
}

fn lasting(report: &DurabilityReport) -> String {
    let assessment = &report.assessment;
    let row = |mode: &ModeFigures| {
        vec![
            mode.scheme.mode().to_owned(),
            mode.chunks.to_string(),
            mode.node_sets.to_string(),
            format!("{:.2} h", mode.repair_hours),
            if mode.heals_itself {
                "yes"
            } else {
                "no, add a node"
            }
            .to_owned(),
            years(mode.chunk.mttdl_years),
            format!("{:.1}", mode.chunk.nines_a_year),
        ]
    };
    let rows: Vec<Vec<String>> = assessment.modes.iter().map(row).collect();
    let mut lines = vec![match (&assessment.library, assessment.nines_a_year) {
        (Some(library), Some(nines)) => format!(
            "durability  {nines:.1} nines a year that nothing is lost; on average {} until the first chunk is",
            years(library.mttdl_years)
        ),
        _ => "durability  nothing is stored yet".to_owned(),
    }];
    if assessment.degraded_chunks > 0 {
        lines.push(format!(
            "degraded    {} chunks lack parts now; the chance that one is gone before it is whole again is {:.1e}",
            assessment.degraded_chunks, assessment.degraded_risk
        ));
    }
    if assessment.unreadable_chunks > 0 {
        lines.push(format!(
            "unreadable  {} chunks: too few of their parts answer",
            assessment.unreadable_chunks
        ));
    }
    let assumed: Vec<String> = report
        .assumptions
        .iter()
        .map(|line| format!("  - {line}"))
        .collect();
    let columns = [
        "mode",
        "chunks",
        "sets of nodes",
        "repaired in",
        "heals itself",
        "MTTDL of a chunk",
        "nines a year",
    ];
    format!(
        "{}\n\n{}\n\nthis assumes that\n{}",
        lines.join("\n"),
        table::table(&columns, &rows),
        assumed.join("\n")
    )
}

fn rate(bytes_per_second: f64) -> String {
    format!(
        "{}/s",
        table::size(vstack_core::manifest::seconds_to_ms(bytes_per_second / 1000.0))
    )
}

/// Times that nobody can count get a power of ten.
fn years(years: f64) -> String {
    if years < 10_000.0 {
        format!("{years:.1} years")
    } else {
        format!("{years:.1e} years")
    }
}

/// `7.0 days`, `3.5 h`, `12 s`.
fn span(ms: u64) -> String {
    let seconds = ms as f64 / 1000.0;
    match seconds {
        s if s >= 2.0 * 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s if s >= 2.0 * 3_600.0 => format!("{:.1} h", s / 3_600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_years_read_well() {
        const DAY_MS: u64 = 86_400_000;
        assert_eq!(
            [span(7 * DAY_MS), span(DAY_MS), span(90_000), span(600_000)],
            ["7.0 days", "24.0 h", "90.0 s", "10.0 min"]
        );
        assert_eq!([years(3.06), years(2.5e9)], ["3.1 years", "2.5e9 years"]);
    }
}
