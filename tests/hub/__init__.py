"""A strict Hub on this machine for unmodified clients: huggingface_hub, datasets, diffusers, hf.

    hub = Hub()
    hub.start()                    # then HF_ENDPOINT=hub.url, before a client is imported
    hub.token                      # of alice; also hub.read_token (of alice) and hub.bob_token
    hub.files("alice/rooms", "dataset")                      # path -> bytes
    hub.fail("POST", "/commit/main", 503, times=2)           # the next two; status 0: no answer
    hub.quota, hub.delay           # storage of a user in bytes; extra seconds for uploads
    hub.log, hub.sent, hub.unknown # requests; uploads of each content; requests without a route
    hub.reset(); hub.stop()

It refuses the same requests as the Hub, in the words of the Hub where they are known. Each file
lists the routes that it serves. Pull requests, discussions, organisations, gated repositories and
moves are missing. In a checkout, `python -m tests.hub` runs it by hand.
"""

from tests.hub.server import Hub as Hub
