"""Reads a trace with Perfetto's own messages and prints what is in it as JSON."""

import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

trace = protos.Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())
tracks, slices, instants, stacks = {}, [], [], {}
for packet in trace.packet:
    for message in [packet, packet.track_event, packet.track_descriptor]:
        assert len(UnknownFieldSet(message)) == 0, message
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        tracks[track.uuid] = {"name": track.name, "parent": track.parent_uuid or None, "counter": track.HasField("counter")}
    if not packet.HasField("track_event"):
        continue
    event = packet.track_event
    assert event.track_uuid in tracks, event
    found = {
        "name": event.name,
        "track": event.track_uuid,
        "at": packet.timestamp,
        "categories": list(event.categories),
        "flows": list(event.flow_ids),
        "ends": list(event.terminating_flow_ids),
        "notes": {note.name: note.string_value for note in event.debug_annotations},
    }
    if event.type == event.TYPE_SLICE_BEGIN:
        assert not stacks.get(event.track_uuid), f"slices of one track overlap: {found}"
        stacks.setdefault(event.track_uuid, []).append(found)
    elif event.type == event.TYPE_SLICE_END:
        begun = stacks[event.track_uuid].pop()
        assert packet.timestamp >= begun["at"]
        slices.append({**begun, "end": packet.timestamp})
    elif event.type == event.TYPE_INSTANT:
        instants.append(found)
    else:
        assert event.type == event.TYPE_COUNTER and tracks[event.track_uuid]["counter"]
assert not any(stacks.values()), stacks
print(json.dumps({"tracks": tracks, "slices": slices, "instants": instants}))
