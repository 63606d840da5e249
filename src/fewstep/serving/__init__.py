"""The web page and the HTTP API of trained models.

`Engine` runs the models and batches requests; `create_app` is the API and the page around it;
`serve` runs both until it is told to stop. Needs the extra ``fewstep[serve]``.
"""

from fewstep.serving.engine import Busy, Call, Closed, Engine, Generation, Work
from fewstep.serving.shelf import Shelf

__all__ = ["Busy", "Call", "Closed", "Engine", "Generation", "Shelf", "Work"]
