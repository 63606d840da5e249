"""The HTTP API, and the page at its root."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fewstep.errors import FewstepError
from fewstep.serving.answers import Answers, Disconnected
from fewstep.serving.engine import Busy, Closed, Engine
from fewstep.serving.faults import error, fault
from fewstep.serving.forms import JSON, sent, upload
from fewstep.serving.guard import Guard
from fewstep.serving.limits import Limits
from fewstep.serving.metrics import Metrics
from fewstep.serving.neighbours import TrainingImages
from fewstep.serving.schemas import EditBody, GenerationBody, InterpolationBody, NeighboursBody
from fewstep.serving.shelf import Shelf
from fewstep.serving.watched import Runs
from fewstep.threads import compute_alone
from fewstep.version import __version__

HERE = Path(__file__).parent
Id = Annotated[str, Query(max_length=1000)]
LAST = 1.0  # seconds for work of the engine that nobody waits for any longer
FILES = ("GET", "HEAD")  # methods of the page's files
ABOUT = (
    "Images from consistency models in one step or a few.\n\n"
    "An image is decided by model, seed, index, class and steps; image i of a request is number i "
    "of fewstep sample --seed SEED. Every PNG carries its settings in a text chunk named fewstep. "
    'Errors are {"error": {"message", "type", "param", "code"}}.'
)


def create_app(
    engine: Engine,
    shelf: Shelf,
    *,
    runs: Runs | None = None,
    training: TrainingImages | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    local: bool = True,
) -> Guard:
    """The ASGI application.

    Args:
        engine: runs the models of the shelf; it is closed with the application.
        shelf: the models.
        runs: the trainings that are watched.
        training: the images that the models were trained on; default none are at hand.
        limits: what a request may ask for.
        token: what clients must send; None for none.
        local: answer only for loopback's names.
    """
    limits = limits or Limits()
    answers = Answers(engine, shelf, limits, training or TrainingImages())
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        others = ThreadPoolExecutor(thread_name_prefix="aside", initializer=compute_alone)
        asyncio.get_running_loop().set_default_executor(others)
        yield
        await asyncio.to_thread(engine.close, LAST)

    app = FastAPI(
        title="fewstep",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_routes(app, answers, metrics, engine)
    _add_runs(app, runs or Runs())
    _add_errors(app)
    app.add_route("/docs", lambda _: RedirectResponse("docs/"), include_in_schema=False)
    app.mount("/docs", Pages(directory=HERE / "docs", html=True), name="docs")
    app.mount("/", Pages(directory=HERE / "page", html=True), name="page")
    return Guard(app, metrics=metrics, most=limits.body, token=token, local=local)


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request does not fit the model or the limits."},
    401: {"description": "The token is missing or wrong."},
    405: {"description": "The route has other methods; see Allow."},
    413: {"description": "The body is too large."},
    422: {"description": "A field is missing, unknown or of the wrong kind."},
    429: {"description": "The queue is full; see Retry-After."},
    500: {"description": "The model gives no picture: its output is not finite."},
    503: {"description": "The server is shutting down."},
    504: {"description": "The answer took too long."},
}


def _add_routes(app: FastAPI, answers: Answers, metrics: Metrics, engine: Engine) -> None:
    images = {"tags": ["images"], "responses": ERRORS}
    about = {"tags": ["server"]}

    @app.post("/v1/images/generations", **images)  # type: ignore[arg-type]
    async def generations(body: GenerationBody, request: Request) -> Response:
        """Make images."""
        return await answers.generations(body, request)

    @app.post("/v1/images/edits", openapi_extra=_either_form_or_json(), **images)  # type: ignore[arg-type]
    async def edits(request: Request) -> Response:
        """Edit a picture: inpaint, outpaint, colourise, superresolve, deblur, strokes, vary, ..."""
        return await answers.edits(await upload(request), request)

    @app.post("/v1/images/interpolations", **images)  # type: ignore[arg-type]
    async def interpolations(body: InterpolationBody, request: Request) -> Response:
        """Pass from one image to another over a sphere of noise."""
        return await answers.interpolations(body, request)

    @app.post("/v1/images/neighbours", openapi_extra=_json_of(NeighboursBody), **images)  # type: ignore[arg-type]
    async def neighbours(request: Request) -> Response:
        """The training images that are nearest to a picture, where they are at hand."""
        return await answers.neighbours(await sent(request, NeighboursBody))

    @app.get("/v1/models", **about)  # type: ignore[arg-type]
    async def models() -> dict[str, Any]:
        """The models and what each can do."""
        return {"object": "list", "data": await asyncio.to_thread(answers.models)}

    @app.get("/health", **about)  # type: ignore[arg-type]
    async def health() -> dict[str, str]:
        """Whether the server takes requests."""
        if engine.closed:
            raise Closed("the server is shutting down.")
        return {"status": "ok", "engine": answers.shelf.engine.name}

    @app.get("/metrics", response_class=PlainTextResponse, **about)  # type: ignore[arg-type]
    async def metrics_text() -> str:
        """Counters and histograms for Prometheus."""
        return metrics.text(engine)


def _add_runs(app: FastAPI, runs: Runs) -> None:
    """The trainings that are watched; their files are read aside."""
    about: Any = {"tags": ["trainings"], "responses": {400: ERRORS[400]}}

    @app.get("/v1/runs", **about)
    async def look() -> dict[str, Any]:
        """How far each training is."""
        found, left_out = await asyncio.to_thread(runs.look)
        return {"object": "list", "data": found, "left_out": left_out}

    @app.get("/v1/runs/log", **about)
    async def log(run: Id, after: int = 0, epoch: str = "") -> dict[str, Any]:
        """Rows of a training's log, one per step: those after the first `after` of an epoch."""
        return await asyncio.to_thread(runs.log, run, after, epoch)

    @app.get("/v1/runs/sample", response_class=Response, **about)
    async def sample(run: Id, step: Annotated[int, Query(ge=0, lt=2**53)]) -> Response:
        """The PNG of the samples of a step."""
        return Response(await asyncio.to_thread(runs.sample, run, step), media_type="image/png")


class Pages(StaticFiles):
    """The page's files, whole: they are small, and a wish for a part of one may be passed over."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _allowed(app: FastAPI, path: str) -> set[str]:
    """Methods that a path is there for; none where it is not."""
    routes = (r for r in app.routes if isinstance(r, Route) and r.path_regex.match(path))
    methods = {method for route in routes for method in route.methods or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


def _json_of(kind: type[BaseModel]) -> dict[str, Any]:
    """What a route takes that reads its body itself, for the OpenAPI description."""
    schema = kind.model_json_schema(by_alias=True)
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _either_form_or_json() -> dict[str, Any]:
    """What the edits take, for the OpenAPI description."""
    taken = _json_of(EditBody)
    content = taken["requestBody"]["content"]
    form = json.loads(json.dumps(content[JSON]["schema"]))
    for name in ("image", "mask"):
        form["properties"][name] = {"type": "string", "format": "binary"}
    content["multipart/form-data"] = {"schema": form}
    return taken


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    @app.exception_handler(TimeoutError)
    @app.exception_handler(FewstepError)
    async def failed(_: Request, exc: Exception) -> JSONResponse:
        status, body = fault(exc)
        return JSONResponse(body, status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}." if where else f"{first['msg']}."
        return JSONResponse(error(message, "invalid", where or None), 422)

    @app.exception_handler(Busy)
    @app.exception_handler(Closed)
    async def later(_: Request, exc: Busy | Closed) -> JSONResponse:
        status, body = fault(exc)
        return JSONResponse(body, status, headers={"Retry-After": str(exc.seconds)})

    @app.exception_handler(Disconnected)
    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, exc: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; the metrics count it

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> JSONResponse:
        status, headers = exc.status_code, dict(exc.headers or {})
        if status in (404, 405):  # the page's files lie below every path
            allowed = _allowed(app, request.url.path)
            status = 405 if allowed or status == 405 else 404
            headers |= {"Allow": ", ".join(sorted(allowed or FILES))} if status == 405 else {}
        message = {
            404: f"there is no {request.url.path}.",
            405: f"{request.url.path} takes {headers.get('Allow')} only.",
        }.get(status, f"{exc.detail.rstrip('.')}.")
        code = {404: "not_found", 405: "method"}.get(status, "invalid")
        return JSONResponse(error(message, code), status, headers=headers)
