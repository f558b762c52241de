"""What a client takes of a server's answers, as targets of fuzzing."""

import numpy as np

from qtopt.apps.drills.targets import IMAGE_PX, Target, labelled_store, make_episode, message_target
from qtopt.rpc import codec, policy
from qtopt.rpc.gen import model_pb2, policy_pb2, replay_pb2
from qtopt.rpc.handshake import check_schemas, local_schema
from qtopt.types import Behaviour, Decision, ModelSnapshot


def answer_targets(rng: np.random.Generator) -> list[Target]:
    """Returns one target for each answer with content that a client takes apart."""
    store = labelled_store(rng)
    drawn = replay_pb2.SampleTransitionsResponse()
    codec.encode_transitions(store.sample_transitions(4, 1.0), drawn.transitions)
    labelled = replay_pb2.SampleLabelledResponse()
    codec.encode_labelled(store.sample_labelled(4, 1.0), labelled.batch)
    decision = codec.encode_decision(Decision(make_episode(rng).actions[0], Behaviour.GREEDY, 0.5))
    state = policy._state(np.random.default_rng(0))
    decided = policy_pb2.SelectActionResponse(decision=decision, rng_json=state)
    snapshot = ModelSnapshot(3, 100, b"networks", codec.payload_digest(b"networks"))
    newest = model_pb2.GetLatestResponse(snapshot=codec.encode_snapshot(snapshot))
    ours = local_schema((IMAGE_PX, IMAGE_PX))
    agreed = replay_pb2.HandshakeResponse(schema=ours)
    return [
        message_target("answer of SampleTransitions", lambda m: codec.decode_transitions(m.transitions), drawn),
        message_target("answer of SampleLabelled", lambda m: codec.decode_labelled(m.batch), labelled),
        message_target("answer of SelectAction", _decide, decided),
        message_target("answer of GetLatest", lambda m: codec.decode_snapshot(m.snapshot), newest),
        message_target("answer of Handshake", lambda m: check_schemas(ours, m.schema), agreed),
    ]


def _decide(answer: policy_pb2.SelectActionResponse) -> None:
    policy._set_state(np.random.default_rng(0), answer.rng_json)
    codec.decode_decision(answer.decision)
