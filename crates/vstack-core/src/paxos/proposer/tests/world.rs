//! Two proposers in a world that loses, repeats and reorders everything.

use super::*;

/// A message on its way. Requests carry the proposer they come from.
#[derive(Debug, Clone)]
enum Message {
    Request(usize, Output),
    Answer(usize, Input),
}

/// One row, five nodes, two proposers with different bytes for the same chunk, and a network that does as it likes.
struct World {
    row: Row,
    fences: BTreeMap<NodeId, Fence>,
    objects: BTreeMap<(NodeId, Ballot), ChunkDigest>,
    proposers: Vec<Proposer>,
    digests: Vec<ChunkDigest>,
    network: Vec<Message>,
    now: UnixMillis,
    random: u64,
    decided: Vec<Accepted>,
    outcomes: Vec<Output>,
}

impl World {
    fn new(seed: u64) -> Self {
        let digests = vec![ChunkDigest::of(b"one"), ChunkDigest::of(b"two")];
        Self {
            row: Row::default(),
            fences: (1..=5).map(|number| (node(number), Fence::default())).collect(),
            objects: BTreeMap::new(),
            proposers: digests
                .iter()
                .zip(seed..)
                .map(|(&digest, seed)| Proposer::new(chunk(), digest, seed))
                .collect(),
            digests,
            network: vec![Message::Answer(0, Input::Start), Message::Answer(1, Input::Start)],
            now: UnixMillis(0),
            random: seed,
            decided: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % below
    }

    /// Delivers a random message, or loses it, or delivers it and keeps it for later.
    fn tick(&mut self, faults: bool) {
        let index = self.draw(self.network.len());
        let message = self.network.swap_remove(index);
        match self.draw(10) {
            0 if faults => self.lose(message),
            1 if faults => {
                self.network.push(message.clone());
                self.deliver(message);
            }
            _ => self.deliver(message),
        }
    }

    fn lose(&mut self, message: Message) {
        let transient = || Failure::Transient {
            reason: "lost".into(),
        };
        let (from, answer) = match message {
            Message::Request(from, Output::Open { .. }) | Message::Answer(from, Input::Granted { .. }) => {
                (from, Input::OpenFailed(transient()))
            }
            Message::Request(
                from,
                Output::Prepare { node, grant }
                | Output::Accept { node, grant }
                | Output::Adopt { node, grant, .. },
            ) => (
                from,
                Input::StoreFailed {
                    node,
                    ballot: grant.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Promised(promise)) => (
                from,
                Input::StoreFailed {
                    node: promise.node,
                    ballot: promise.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Stored(receipt)) => (
                from,
                Input::StoreFailed {
                    node: receipt.node,
                    ballot: receipt.ballot,
                    failure: transient(),
                },
            ),
            Message::Request(from, Output::Commit { ballot, .. }) => (
                from,
                Input::CommitFailed {
                    ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Committed(accepted)) => (
                from,
                Input::CommitFailed {
                    ballot: accepted.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, other) => (from, other),
            Message::Request(..) => return,
        };
        self.network.push(Message::Answer(from, answer));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Answer(to, input) => {
                for output in self.proposers[to].step(self.now, input) {
                    match output {
                        Output::WakeAt(at) => {
                            self.now = self.now.max(at);
                            self.network.push(Message::Answer(to, Input::Wake));
                        }
                        Output::Done { .. } | Output::Failed { .. } => self.outcomes.push(output),
                        Output::GaveUpOn { .. } => {}
                        request => self.network.push(Message::Request(to, request)),
                    }
                }
            }
            Message::Request(from, Output::Open { exclude, min_ack, .. }) => {
                let answer = self.open(from, &exclude, min_ack);
                self.network.push(Message::Answer(from, answer));
            }
            Message::Request(from, Output::Prepare { node, grant }) => self.prepare(from, node, &grant),
            Message::Request(from, Output::Accept { node, grant }) => self.store(from, node, &grant, None),
            Message::Request(
                from,
                Output::Adopt {
                    node,
                    grant,
                    from: source,
                },
            ) => {
                self.store(from, node, &grant, Some(source));
            }
            Message::Request(
                from,
                Output::Commit {
                    ballot,
                    value,
                    receipts,
                },
            ) => {
                let answer = self.commit(ballot, value, receipts);
                self.network.push(Message::Answer(from, answer));
            }
            Message::Request(..) => {}
        }
    }

    fn open(&mut self, from: usize, exclude: &BTreeSet<NodeId>, min_ack: u8) -> Input {
        let nodes: Vec<_> = (1..=5).map(node).filter(|node| !exclude.contains(node)).collect();
        let first = self.draw(5);
        let nodes: Vec<_> = nodes
            .iter()
            .cycle()
            .skip(first)
            .take(nodes.len().min(3))
            .copied()
            .collect();
        if nodes.len() < min_ack.into() {
            return Input::OpenFailed(Failure::NotEnoughNodes {
                reason: "too few".into(),
            });
        }
        let request = OpenRequest {
            kind: OpenKind::Upload,
            owner: from.to_string(),
            expect_epoch: None,
            nodes: nodes.iter().copied().map(Target::whole).collect(),
            min_ack,
            generation: 1,
            now: self.now,
            // Leases only make duels rare; here they shall be frequent.
            lease_ms: 0,
            knowledge: Knowledge::Complete,
        };
        match master::open(chunk(), &self.row, &request) {
            Ok(opened) => {
                self.collect(&opened.garbage);
                self.row = opened.row;
                let ballots = (opened.ballot, Ballot::PLAIN);
                let key = key().grant_key();
                Input::Granted {
                    grant: Grant::signed(&key, chunk(), ballots, nodes, min_ack, self.now),
                    replaced: opened.replaced,
                }
            }
            Err(Conflict::AlreadyCommitted { accepted }) => Input::OpenFailed(Failure::Decided(accepted)),
            Err(other) => Input::OpenFailed(Failure::Refused {
                reason: other.to_string(),
            }),
        }
    }

    /// Deletes what R3 lets go, sometimes.
    fn collect(&mut self, garbage: &[master::Garbage]) {
        for garbage in garbage {
            if self.draw(2) == 0 {
                self.objects.remove(&(garbage.node, garbage.ballot));
            }
        }
    }

    fn object(&self, node: NodeId, ballot: Ballot) -> Object {
        self.objects
            .get(&(node, ballot))
            .map_or(Object::Absent, |&digest| Object::Stored(digest))
    }

    fn prepare(&mut self, from: usize, node: NodeId, grant: &Grant) {
        let held = self.objects.iter().filter(|((holder, _), _)| *holder == node);
        let objects = held.map(|(&(_, ballot), &digest)| Held {
            object: chunk(),
            ballot,
            digest,
        });
        let objects = objects.collect();
        let fence = self.fences.get_mut(&node).unwrap();
        let answer = match fence.prepare(grant, node, objects) {
            Ok(promise) => Input::Promised(promise),
            Err(_) => Input::StoreFailed {
                node,
                ballot: grant.ballot,
                failure: Failure::Fenced,
            },
        };
        self.network.push(Message::Answer(from, answer));
    }

    fn store(&mut self, from: usize, node: NodeId, grant: &Grant, source: Option<Ballot>) {
        let outcome = self.stored_digest(from, node, grant, source);
        let answer = match outcome {
            Ok(digest) => Input::Stored(receipt(node, grant.ballot, digest)),
            Err(refusal) => {
                let failure = match refusal {
                    Refusal::Fenced { .. } => Failure::Fenced,
                    Refusal::SourceMissing => Failure::SourceMissing,
                    other => Failure::Permanent {
                        reason: other.to_string(),
                    },
                };
                Input::StoreFailed {
                    node,
                    ballot: grant.ballot,
                    failure,
                }
            }
        };
        self.network.push(Message::Answer(from, answer));
    }

    fn stored_digest(
        &mut self,
        from: usize,
        node: NodeId,
        grant: &Grant,
        source: Option<Ballot>,
    ) -> Result<ChunkDigest, Refusal> {
        let fence = self.fences.get_mut(&node).unwrap();
        fence.admit(grant, chunk(), node, Ballot::PLAIN)?;
        let target = self.object(node, grant.ballot);
        let (digest, verdict) = match source {
            Some(source) => {
                acceptor::adopt(self.object(node, source), Some(self.digests[from].sha256), target)?
            }
            None => (self.digests[from], acceptor::accept(target, &self.digests[from])?),
        };
        if verdict == Verdict::Write {
            self.objects.insert((node, grant.ballot), digest);
        }
        Ok(digest)
    }

    fn commit(&mut self, ballot: Ballot, value: Placement, receipts: Vec<Receipt>) -> Input {
        let witnesses: Vec<_> = receipts
            .into_iter()
            .map(|receipt| Witness::check(receipt, &key()).unwrap())
            .collect();
        let live = |node: NodeId| Some(life(node));
        match master::commit(
            chunk(),
            &self.row,
            ballot,
            &Value::Placed(value),
            &witnesses,
            live,
        ) {
            Ok(done) => {
                self.row = done.row;
                self.collect(&done.garbage);
                if !done.replayed {
                    self.decided.push(done.accepted.clone());
                }
                Input::Committed(done.accepted)
            }
            Err(Conflict::Fenced {
                accepted: Some(accepted),
                ..
            }) => Input::CommitFailed {
                ballot,
                failure: Failure::Decided(accepted),
            },
            Err(Conflict::Fenced { .. }) => Input::CommitFailed {
                ballot,
                failure: Failure::Fenced,
            },
            Err(other) => Input::CommitFailed {
                ballot,
                failure: Failure::Refused {
                    reason: other.to_string(),
                },
            },
        }
    }

    fn run(&mut self, faults: bool) {
        for _ in 0..20_000 {
            if self.network.is_empty() {
                return;
            }
            self.tick(faults);
        }
        assert!(faults || self.network.is_empty(), "it never came to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lost_repeated_and_reordered_messages_never_decide_two_values(seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.run(true);
        prop_assert!(world.decided.len() <= 1, "{:?}", world.decided);
        if let Some(accepted) = world.decided.first() {
            let placement = accepted.value.placement().unwrap();
            for part in &placement.parts {
                let held = world.objects.get(&(part.node, part.object_ballot));
                prop_assert_eq!(held, Some(&placement.digest), "a decided part is not on its node");
            }
        }
        for outcome in &world.outcomes {
            if let Output::Done { accepted, .. } = outcome {
                prop_assert_eq!(Some(accepted), world.decided.first(), "a proposer was told what is not decided");
            }
        }
    }

    #[test]
    fn without_faults_somebody_always_succeeds(seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.run(false);
        prop_assert_eq!(world.decided.len(), 1);
        prop_assert!(world.proposers.iter().all(Proposer::is_finished));
    }
}
