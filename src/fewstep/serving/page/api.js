// The server's HTTP API. Addresses are relative, so that the page works behind any prefix.
//
// All that the page knows of what answers it is this module's exports. An exported page has another
// module in its place, which computes the same answers in the browser: `../browser/api.js`.

const token = new URLSearchParams(location.search).get("token");

/** What went wrong, in words for the user; `param` is the setting that it is about, if known. */
export class ApiError extends Error {
  constructor(message, param = null) {
    super(message);
    this.param = param;
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is `fewstep serve` still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  if (response.status === 429) {
    const after = response.headers.get("Retry-After");
    return new ApiError(`The server is busy. Try again${after ? ` in ${after} s` : " soon"}.`);
  }
  if (response.status === 401)
    return new ApiError("This server asks for a token: open the page at the address that `fewstep serve` printed, which ends in ?token=…");
  return new ApiError(error?.message ?? `The server answered ${response.status}.`, error?.param);
}

const json = (body, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

export async function models() {
  return (await (await call("v1/models")).json()).data;
}

/** Images; with `onPartial` they are streamed, and it is called for every step of every image. */
export async function generate(body, { signal, onPartial } = {}) {
  const request = { n: 1, response_format: "b64_json", stream: Boolean(onPartial), ...body };
  const response = await call("v1/images/generations", json(request, signal));
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream"))
    return response.json();
  let whole = null;
  for await (const { event, data } of events(response.body)) {
    if (event === "image.partial") onPartial(data);
    else if (event === "done") whole = data;
    else if (event === "error") throw new ApiError(data.error?.message ?? "The server failed.");
  }
  if (!whole) throw new ApiError("The server ended the stream before the images were done.");
  return whole;
}

/** Server-sent events of a stream of bytes, their data parsed. */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true }).replaceAll("\r\n", "\n");
      const parts = text.split("\n\n");
      text = parts.pop();
      yield* parts.map(parsed).filter(Boolean);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection to the server broke before the images were done.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const of = (name) =>
    block.split("\n").filter((line) => line.startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).trimStart()).join("\n");
  const data = of("data");
  return data && data !== "[DONE]" && { event: of("event"), data: JSON.parse(data) };
}

/** An edit: `files` are Blobs by name, `fields` the settings; empty ones are left out. */
export async function edit(fields, files, { signal } = {}) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields))
    if (value !== null && value !== undefined && value !== "") form.append(name, value);
  for (const [name, blob] of Object.entries(files))
    if (blob) form.append(name, blob, `${name}.png`);
  return (await call("v1/images/edits", { method: "POST", body: form, signal })).json();
}

export async function interpolate(body, { signal } = {}) {
  return (await call("v1/images/interpolations", json(body, signal))).json();
}

/** The training images that are nearest to a picture in base64. */
export async function neighbours(body, { signal } = {}) {
  return (await call("v1/images/neighbours", json(body, signal))).json();
}

const query = (path, values) => `${path}?${new URLSearchParams(values)}`;

/** The trainings that are watched as `data`, how far each is, and how many older ones are left out. */
export async function runs() {
  return (await call("v1/runs")).json();
}

/** Rows of a training's log: those after the first `after` of an epoch. */
export async function runLog(run, after, epoch) {
  return (await call(query("v1/runs/log", { run, after, epoch }))).json();
}

/** The PNG of a training's samples at a step, as a Blob. */
export async function runSample(run, step) {
  return (await call(query("v1/runs/sample", { run, step }))).blob();
}

/** Whether requests carry a token; commands that are shown then name a variable for it. */
export const guarded = Boolean(token);

/** Whether there is an HTTP API, whose requests can be shown. */
export const served = true;

/** How the seconds of an answer were measured. */
export const measured = "The fastest of up to 5 runs, as the server measures them. They contain its short wait for other requests to share a batch.";

/** How to have a model of another kind beside those that are here, `runs`. */
export const beside = (kind, runs) => `Serve a ${kind} model beside it: fewstep serve ${runs.join(" ")} runs/…`;

/** A request and its answer that the page opens with, if there is one. */
export const first = async () => null;

/** What the foot of the page says, where it is not what stands there. */
export const about = () => null;
