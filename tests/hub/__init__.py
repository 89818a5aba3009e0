"""A strict Hub on this machine for unmodified clients: huggingface_hub, datasets, diffusers, hf.

    hub = Hub()
    hub.start()                    # then HF_ENDPOINT=hub.url, before a client is imported
    hub.token                      # alice's; also hub.read_token (hers, too) and hub.bob_token
    hub.files("alice/rooms", "dataset")                      # path -> bytes
    hub.fail("POST", "/commit/main", 503, times=2)           # the next two; status 0: no answer
    hub.quota, hub.delay           # bytes a user may store; seconds that uploads take longer
    hub.log, hub.sent, hub.unknown # what was asked; how often each content came; what has no route
    hub.reset(); hub.stop()

It refuses what the Hub refuses, in the Hub's words where they are known: see each file for the
routes it serves. Pull requests, discussions, organisations, gated repositories and moves are
missing. `python -m tests.hub` runs it by hand.
"""

from tests.hub.server import Hub as Hub
