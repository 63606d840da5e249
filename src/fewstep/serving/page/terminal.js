// The command line and the HTTP request that do the same as the page.

import { guarded, served } from "./api.js";
import { el } from "./widgets.js";

const quoted = (word) => (/^[\w./:=@%+,-]+$/.test(word) ? String(word) : `'${String(word).replaceAll("'", "'\\''")}'`);

/** Flags with values; those that are null or empty are left out. */
export function words(flags) {
  return Object.entries(flags)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([flag, value]) => `${flag} ${quoted(value)}`)
    .join(" ");
}

const address = (path) => new URL(path, location.href.split(/[?#]/)[0]).href;
const head = (path) =>
  `curl ${quoted(address(path))}` + (guarded ? ` \\\n  -H "Authorization: Bearer $FEWSTEP_TOKEN"` : "");

/** A request with a JSON body; null where there is no API. */
export function curl(path, body) {
  if (!served) return null;
  const text = JSON.stringify(body, (_, value) => value ?? undefined);
  return `${head(path)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(text)}`;
}

/** A request with files, `files` by field name; null where there is no API. */
export function curlForm(path, fields, files) {
  if (!served) return null;
  const parts = [...Object.entries(files).map(([name, file]) => [name, `@${file}`]), ...Object.entries(fields)];
  return head(path) + parts
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => ` \\\n  -F ${quoted(`${name}=${value}`)}`)
    .join("");
}

/** A model as the command line takes it. */
export const run = ({ id, path }) => quoted(path ?? `runs/${id}`);

/** Fill the collapsible with titled commands, each with a button that copies it. */
export function terminal(details, commands) {
  details.querySelectorAll(".command").forEach((old) => old.remove());
  details.append(
    ...commands.filter(([, text]) => text !== null).map(([title, text]) => {
      const copy = el("button", { type: "button" }, "Copy");
      copy.hidden = !navigator.clipboard;
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
        setTimeout(() => (copy.textContent = "Copy"), 1500);
      });
      const heading = el("div", { className: "row" }, el("h3", {}, title), copy);
      return el("div", { className: "command" }, heading, el("pre", { tabIndex: 0 }, text));
    }),
  );
}
