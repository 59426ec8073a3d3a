"""HTTP that speaks the same JSON lines and errors as the filter.

`batches` predicts lines of many requests together, `requests` reads bodies within their limits,
`answers` streams a request's lines back, `app` has the routes, `listen` the socket.
"""

from nlpkit.inference.server.app import Limits, Served, Service, served
from nlpkit.inference.server.listen import address_of, bind, listen

__all__ = ["Limits", "Served", "Service", "address_of", "bind", "listen", "served"]
