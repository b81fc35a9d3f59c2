//! The calls about chunks: PUT, GET, HEAD, DELETE, ADOPT, leaves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use vstack_api::ErrorCode;
use vstack_api::wire::{
    AdoptRequest, BEHIND_HEADER, GRANT_HEADER, LeavesAnswer, ORDER_HEADER, PutAnswer, PutStatus,
};
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, LEAF_BYTES};
use vstack_core::id::ChunkId;
use vstack_core::paxos::acceptor::{self, Object, Removal, Verdict};
use vstack_core::paxos::{DeleteOrder, Grant};
use vstack_store::{DeleteReason, PutDone, PutRequest, StoreError};

use super::prepare::prepare;
use super::receive::{Announced, Received};
use super::refusals::{fenced, from_store};
use super::respond::{ReadRequest, etag, insert, read};
use super::state::Node;
use crate::http::{Answer, StrictJson, refuse};

/// What a path below `/chunk/` and its query name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    chunk: ChunkId,
    ballot: Option<Ballot>,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bytes,
    Leaves,
    Adopt,
    Prepare,
}

impl Target {
    /// The path is compared as it was sent: no id needs an escape, so one with an escape is malformed.
    fn read(uri: &Uri) -> Answer<Self> {
        let rest = uri.path().strip_prefix("/chunk/").unwrap_or_default();
        let (id, part) = match rest.split_once('/') {
            None => (rest, Part::Bytes),
            Some((id, "leaves")) => (id, Part::Leaves),
            Some((id, "adopt")) => (id, Part::Adopt),
            Some((id, "prepare")) => (id, Part::Prepare),
            Some(_) => return Err(refuse(ErrorCode::BadChunkId, "a chunk id has no slash")),
        };
        let chunk = id
            .parse()
            .map_err(|error| refuse(ErrorCode::BadChunkId, format!("{error}")))?;
        Ok(Self {
            chunk,
            ballot: ballot_of(uri.query().unwrap_or_default())?,
            part,
        })
    }

    fn expect(self, part: Part) -> Answer<Self> {
        if self.part == part {
            Ok(self)
        } else {
            Err(refuse(
                ErrorCode::MethodNotAllowed,
                "this address does not take that method",
            ))
        }
    }
}

/// `ballot=N`; parameters that others add are not ours.
fn ballot_of(query: &str) -> Answer<Option<Ballot>> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("ballot="));
    let ballot = values.next().map(str::parse).transpose();
    match (ballot, values.next()) {
        (Ok(ballot), None) => Ok(ballot),
        _ => Err(refuse(ErrorCode::BadRequest, "ballot is one decimal number")),
    }
}

pub(super) async fn get(State(node): State<Arc<Node>>, request: Request) -> Answer<Response> {
    let Target { chunk, ballot, part } = Target::read(request.uri())?;
    match part {
        Part::Bytes => {
            let (parts, _) = request.into_parts();
            let (method, headers) = (parts.method, parts.headers);
            read(
                node,
                ReadRequest {
                    method,
                    headers,
                    chunk,
                    ballot,
                },
            )
            .await
        }
        Part::Leaves => {
            let _in_flight = node.load.enter();
            let leaves = node
                .on_disk(move |node| node.store.leaves(chunk, ballot).map_err(from_store))
                .await?;
            Ok(Json(LeavesAnswer {
                leaf_bytes: LEAF_BYTES as u64,
                leaves,
            })
            .into_response())
        }
        Part::Adopt | Part::Prepare => Err(refuse(ErrorCode::MethodNotAllowed, "this is a POST")),
    }
}

pub(super) async fn put(State(node): State<Arc<Node>>, request: Request) -> Answer<Response> {
    let Target { chunk, ballot, .. } = Target::read(request.uri())?.expect(Part::Bytes)?;
    node.check_writable()?;
    let behind = request.headers().contains_key(BEHIND_HEADER);
    let _in_flight = match behind {
        true => node.load.enter_behind(),
        false => node.load.enter(),
    };
    if behind {
        node.load.behind_viewers().await;
    }
    let (parts, body) = request.into_parts();
    let announced = Announced::read(&parts.headers)?;
    let grant = match ballot {
        Some(ballot) if !ballot.is_plain() => Some(grant_of(&parts.headers, ballot)?),
        _ => None,
    };
    // Before the body is read: whether it is allowed and whether it has room.
    let grant = node
        .on_disk(move |node| {
            if let Some(grant) = &grant {
                node.admit(grant, chunk)?;
            }
            // What may be here already is decided by its bytes, also on a full disk.
            if node.store.ballots(chunk).is_empty() {
                node.store
                    .check_room(announced.length.unwrap_or(0))
                    .map_err(from_store)?;
            }
            Ok(grant)
        })
        .await?;
    let received = announced.receive(&node.receiver, body).await?;
    node.received_bytes.inc_by(received.digest.size_bytes);
    match grant {
        Some(grant) => store_granted(&node, chunk, grant, received).await,
        None => store_plain(&node, chunk, received).await,
    }
}

/// ACCEPT: bytes under a granted ballot.
async fn store_granted(
    node: &Arc<Node>,
    chunk: ChunkId,
    grant: Grant,
    received: Received,
) -> Answer<Response> {
    let Received {
        data,
        digest,
        budget: _budget,
    } = received;
    let ballot = grant.ballot;
    let waiting = node
        .on_disk(move |node| {
            // Again: the bytes may have taken long to arrive, and a newer ballot may have come meanwhile.
            node.admit(&grant, chunk)?;
            let verdict = acceptor::accept(node.object(chunk, ballot)?, &digest).map_err(fenced)?;
            Ok(carry_out(
                node,
                verdict,
                PutRequest {
                    chunk,
                    ballot,
                    data,
                    digest,
                },
            ))
        })
        .await?;
    answer_put(node, waiting.outcome().await?)
}

/// A plain client's bytes: ballot 0.
async fn store_plain(node: &Arc<Node>, chunk: ChunkId, received: Received) -> Answer<Response> {
    let Received {
        data,
        digest,
        budget: _budget,
    } = received;
    let waiting = node
        .on_disk(move |node| {
            let ballot = Ballot::PLAIN;
            let plain = node.object(chunk, ballot)?;
            let highest = node.store.stat(chunk, None).ok().map(|stat| stat.digest);
            let verdict = acceptor::accept_plain(plain, highest.as_ref(), &digest).map_err(fenced)?;
            // Where the same bytes are here under another ballot only, the store gives them this name too (a small
            // record), so that the catalogue can adopt what the client was told is stored.
            let verdict = if plain == Object::Absent {
                Verdict::Write
            } else {
                verdict
            };
            Ok(carry_out(
                node,
                verdict,
                PutRequest {
                    chunk,
                    ballot,
                    data,
                    digest,
                },
            ))
        })
        .await?;
    answer_put(node, waiting.outcome().await?)
}

pub(super) async fn post(State(node): State<Arc<Node>>, request: Request) -> Answer<Response> {
    let target = Target::read(request.uri())?;
    node.check_writable()?;
    let _in_flight = node.load.enter();
    if target.part == Part::Prepare {
        return Ok(prepare(&node, target.chunk, request).await?.into_response());
    }
    let Target { chunk, .. } = target.expect(Part::Adopt)?;
    let StrictJson(body) = StrictJson::<AdoptRequest>::from_request(request, &()).await?;
    let AdoptRequest {
        grant,
        from_ballot,
        sha256,
    } = body;
    let waiting = node
        .on_disk(move |node| {
            node.admit(&grant, chunk)?;
            let ballot = grant.ballot;
            // The source is read whole if it was not yet in this boot: a receipt is not given for rotten bytes.
            match node.store.open_object(chunk, Some(from_ballot)) {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(damaged) => return Err(from_store(damaged)),
            }
            let (source, target) = (node.object(chunk, from_ballot)?, node.object(chunk, ballot)?);
            let (digest, verdict) = acceptor::adopt(source, sha256, target).map_err(fenced)?;
            if verdict == Verdict::Resend(digest) {
                return Ok(Waiting::Done(PutDone {
                    chunk,
                    ballot,
                    digest,
                    already_stored: true,
                }));
            }
            let (done, outcome) = oneshot::channel();
            let sha256 = Some(digest.sha256);
            let request = vstack_store::AdoptRequest {
                chunk,
                ballot,
                from: from_ballot,
                sha256,
            };
            node.store.adopt(request, move |result| drop(done.send(result)));
            Ok(Waiting::For(outcome))
        })
        .await?;
    answer_put(&node, waiting.outcome().await?)
}

/// The outcome of a write that is under way or was not needed.
enum Waiting {
    Done(PutDone),
    For(oneshot::Receiver<Result<PutDone, StoreError>>),
}

impl Waiting {
    async fn outcome(self) -> Answer<PutDone> {
        match self {
            Self::Done(done) => Ok(done),
            Self::For(outcome) => outcome
                .await
                .unwrap_or(Err(StoreError::Stopped))
                .map_err(from_store),
        }
    }
}

/// Starts what the acceptor decided. The store checks names and bytes once more, when it is this request's turn.
fn carry_out(node: &Node, verdict: Verdict, request: PutRequest) -> Waiting {
    let PutRequest { chunk, ballot, .. } = request;
    match verdict {
        Verdict::Resend(digest) => Waiting::Done(PutDone {
            chunk,
            ballot,
            digest,
            already_stored: true,
        }),
        Verdict::Write => {
            let (done, outcome) = oneshot::channel();
            // Nobody waits for the answer of a connection that is gone.
            node.store.put(request, move |result| drop(done.send(result)));
            Waiting::For(outcome)
        }
    }
}

fn answer_put(node: &Node, done: PutDone) -> Answer<Response> {
    let PutDone {
        chunk,
        ballot,
        digest,
        already_stored,
    } = done;
    let ChunkDigest {
        size_bytes,
        sha256,
        leaf_root,
    } = digest;
    let (code, status) = match already_stored {
        true => (StatusCode::OK, PutStatus::AlreadyStored),
        false => (StatusCode::CREATED, PutStatus::Stored),
    };
    let receipt = (!ballot.is_plain()).then(|| node.receipt(chunk, ballot, digest));
    let location = match ballot.is_plain() {
        true => format!("/chunk/{chunk}"),
        false => format!("/chunk/{chunk}?ballot={ballot}"),
    };
    let body = PutAnswer {
        chunk_id: chunk,
        ballot,
        size_bytes,
        sha256,
        leaf_root,
        status,
        receipt,
    };
    let mut response = (code, Json(body)).into_response();
    insert(&mut response, header::LOCATION, &location);
    insert(&mut response, header::ETAG, &etag(&sha256));
    Ok(response)
}

pub(super) async fn delete(State(node): State<Arc<Node>>, request: Request) -> Answer<Response> {
    let Target { chunk, ballot, .. } = Target::read(request.uri())?.expect(Part::Bytes)?;
    node.check_writable()?;
    let _in_flight = node.load.enter();
    let order = order_of(request.headers())?;
    let ballot = ballot.unwrap_or_default();
    let outcome = node
        .on_disk(move |node| {
            let (removal, reason) = match &order {
                Some(order) => (ordered_removal(node, chunk, ballot, order)?, DeleteReason::Order),
                None => (plain_removal(node, chunk, ballot)?, DeleteReason::Client),
            };
            if removal == Removal::Nothing {
                return Ok(None);
            }
            let (done, outcome) = oneshot::channel();
            node.store
                .delete(chunk, ballot, reason, move |result| drop(done.send(result)));
            Ok(Some(outcome))
        })
        .await?;
    if let Some(outcome) = outcome {
        outcome
            .await
            .unwrap_or(Err(StoreError::Stopped))
            .map_err(from_store)?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) fn ordered_removal(
    node: &Node,
    chunk: ChunkId,
    ballot: Ballot,
    order: &DeleteOrder,
) -> Answer<Removal> {
    if !order.verifies(&node.grant_key) {
        return Err(refuse(
            ErrorCode::BadSignature,
            "the catalogue did not sign this order",
        ));
    }
    if (order.chunk_id, order.ballot) != (chunk, ballot) {
        return Err(refuse(ErrorCode::Forbidden, "the order is for another object"));
    }
    let object = node.object_to_delete(chunk, ballot)?;
    let removal = node.fence().remove(order, node.node_id(), object);
    removal.map_err(fenced)
}

fn plain_removal(node: &Node, chunk: ChunkId, ballot: Ballot) -> Answer<Removal> {
    if !ballot.is_plain() {
        let detail =
            "an object with a ballot goes only by the catalogue's order; delete the video to remove it";
        return Err(refuse(ErrorCode::Committed, detail));
    }
    let plain = node.object_to_delete(chunk, ballot)?;
    let higher_stored = node.holds_higher(chunk);
    acceptor::remove_plain(plain, higher_stored).map_err(fenced)
}

fn grant_of(headers: &HeaderMap, ballot: Ballot) -> Answer<Grant> {
    let Some(token) = headers.get(GRANT_HEADER) else {
        let detail = format!("a PUT with a ballot needs the catalogue's grant in {GRANT_HEADER}");
        return Err(refuse(ErrorCode::Forbidden, detail));
    };
    let grant = token
        .to_str()
        .ok()
        .and_then(|token| Grant::from_token(token).ok());
    let grant =
        grant.ok_or_else(|| refuse(ErrorCode::BadSignature, "the grant is no token of the catalogue"))?;
    if grant.ballot == ballot {
        Ok(grant)
    } else {
        Err(refuse(ErrorCode::Forbidden, "the grant is for another ballot"))
    }
}

fn order_of(headers: &HeaderMap) -> Answer<Option<DeleteOrder>> {
    let Some(token) = headers.get(ORDER_HEADER) else {
        return Ok(None);
    };
    match token.to_str().ok().map(DeleteOrder::from_token) {
        Some(Ok(order)) => Ok(Some(order)),
        _ => Err(refuse(
            ErrorCode::BadSignature,
            "the order is no token of the catalogue",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3b241101-e2bb-4255-8caf-4136c566a962-chunk-000";

    fn target(path: &str) -> Result<Target, ErrorCode> {
        Target::read(&path.parse().unwrap()).map_err(|refusal| refusal.0.code)
    }

    #[test]
    fn a_path_names_a_chunk_a_ballot_and_a_part() {
        let plain = target(&format!("/chunk/{ID}")).unwrap();
        assert_eq!(
            (plain.chunk.to_string().as_str(), plain.ballot, plain.part),
            (ID, None, Part::Bytes)
        );
        let leaves = target(&format!("/chunk/{ID}/leaves?x=1&ballot=7")).unwrap();
        assert_eq!(
            (leaves.ballot, leaves.part),
            (Some(Ballot::from_number(7)), Part::Leaves)
        );
    }

    #[test]
    fn malformed_paths_and_ballots_are_told_apart() {
        for path in [
            "/chunk/x",
            "/chunk/..%2F..%2Fetc%2Fpasswd",
            "/chunk/a/b",
            "/chunk/%00",
        ] {
            assert_eq!(target(path), Err(ErrorCode::BadChunkId), "{path}");
        }
        for query in [
            "ballot=",
            "ballot=-1",
            "ballot=x",
            "ballot=1&ballot=2",
            "ballot=18446744073709551616",
        ] {
            assert_eq!(
                target(&format!("/chunk/{ID}?{query}")),
                Err(ErrorCode::BadRequest),
                "{query}"
            );
        }
    }
}
