//! `vstack status --consensus`: what agreement cost, from the counters of the running roles.

use std::fmt::Write as _;

use serde::Serialize;
use vstack_api::consensus::{Batched, CatalogueCounts, PathCounts, ProposerCounts};
use vstack_api::{MetadataClient, UploaderClient};

use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// HTTP requests of classic single-decree Paxos for one chunk: 3 prepare, 3 accept, 3 learn.
const CLASSIC_REQUESTS: f64 = 9.0;
/// One-way messages of Multi-Paxos with a steady leader: 3 accept, 3 accepted, 3 learn.
const LEADER_MESSAGES: f64 = 9.0;

#[derive(Debug, Serialize)]
struct Consensus {
    metadata_url: String,
    catalogue: CatalogueCounts,
    proposers: Vec<Proposer>,
}

#[derive(Debug, Serialize)]
struct Proposer {
    url: String,
    counts: ProposerCounts,
    fast: Cost,
    contended: Cost,
}

/// What one chunk cost on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cost {
    /// A request with its answer counts once; of OPEN and COMMIT the chunk's share.
    http_requests: Option<f64>,
    /// Twice that.
    one_way_messages: Option<f64>,
}

pub(crate) async fn run(catalogue: &MetadataClient, output: &Output) -> Result<(), Failure> {
    let mut proposers = Vec::new();
    for url in catalogue.uploader_urls().await? {
        let counts = UploaderClient::new(&url).consensus().await?;
        proposers.push(Proposer {
            url,
            fast: cost(counts.fast, &counts),
            contended: cost(counts.contended, &counts),
            counts,
        });
    }
    let consensus = Consensus {
        metadata_url: catalogue.0.base_url().to_owned(),
        catalogue: catalogue.consensus().await?,
        proposers,
    };
    output.say(&consensus, || described(&consensus));
    Ok(())
}

fn cost(path: PathCounts, counts: &ProposerCounts) -> Cost {
    let chunks = path.chunks as f64;
    let to_nodes = (path.prepare + path.accept + path.adopt) as f64 / chunks;
    let ballots = path.ballots as f64 / chunks;
    let requests = to_nodes + ballots * counts.open.each() + counts.commit.each();
    let http_requests = (path.chunks > 0).then_some(requests);
    Cost {
        http_requests,
        one_way_messages: http_requests.map(|requests| 2.0 * requests),
    }
}

fn described(consensus: &Consensus) -> String {
    let mut text = String::new();
    for proposer in &consensus.proposers {
        let _ = writeln!(text, "uploader {}\n", proposer.url);
        let counts = &proposer.counts;
        let rows = [
            row("fast path", counts.fast, Some(proposer.fast)),
            row("contended", counts.contended, Some(proposer.contended)),
            row("known before", counts.known, None),
            row("failed", counts.failed, None),
        ];
        let heads = [
            "path",
            "chunks",
            "ballots",
            "prepare",
            "accept",
            "adopt",
            "requests a chunk",
            "one-way a chunk",
        ];
        let _ = writeln!(text, "{}", table::table(&heads, &rows));
        let _ = writeln!(
            text,
            "OPEN    {}\nCOMMIT  {}\n",
            batched(counts.open),
            batched(counts.commit)
        );
    }
    let catalogue = &consensus.catalogue;
    let _ = writeln!(
        text,
        "metadata {}\nOPEN    {}\nCOMMIT  {}\ndecided {} placements, refused {} COMMITs; sent {} ADOPT and {} orders to delete; \
         heard {} pages of inventories\n",
        consensus.metadata_url,
        batched(catalogue.open),
        batched(catalogue.commit),
        catalogue.decided,
        catalogue.refused,
        catalogue.adopt,
        catalogue.delete_obj,
        catalogue.inventory
    );
    let _ = write!(
        text,
        "Requests are counted with their answers; one-way messages are twice as many. To compare: classic Paxos takes \
         {CLASSIC_REQUESTS:.0} requests a chunk\n(3 prepare, 3 accept, 3 learn), a steady leader {LEADER_MESSAGES:.0} one-way \
         messages. docs/evaluation/consensus-messages.md says what this compares."
    );
    text
}

fn row(name: &str, path: PathCounts, cost: Option<Cost>) -> Vec<String> {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    vec![
        name.to_owned(),
        path.chunks.to_string(),
        path.ballots.to_string(),
        path.prepare.to_string(),
        path.accept.to_string(),
        path.adopt.to_string(),
        figure(cost.and_then(|cost| cost.http_requests)),
        figure(cost.and_then(|cost| cost.one_way_messages)),
    ]
}

fn batched(batched: Batched) -> String {
    format!("{} chunks in {} requests", batched.items, batched.requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(requests: u64, items: u64) -> Batched {
        Batched { requests, items }
    }

    #[test]
    fn a_chunks_cost_has_its_share_of_the_batches() {
        let fast = PathCounts {
            chunks: 4,
            ballots: 4,
            accept: 12,
            ..PathCounts::default()
        };
        let counts = ProposerCounts {
            fast,
            open: batch(1, 4),
            commit: batch(2, 4),
            ..ProposerCounts::default()
        };
        let cost = cost(fast, &counts);
        assert_eq!(
            (cost.http_requests, cost.one_way_messages),
            (Some(3.75), Some(7.5))
        );
        assert_eq!(super::cost(PathCounts::default(), &counts).http_requests, None);
    }
}
