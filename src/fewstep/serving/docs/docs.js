// Draws openapi.json as a page: each route with its fields, its answers and a line for curl.

const EXAMPLES = {
  "/v1/images/generations": `-H 'Content-Type: application/json' \\
  -d '{"n": 4, "seed": 0, "size": "256x256", "response_format": "png"}' -o images.png`,
  "/v1/images/edits": `-F image=@picture.png -F mask=@mask.png \\
  -F task=inpaint -F class=3 -F response_format=png -o edited.png`,
  "/v1/images/interpolations": `-H 'Content-Type: application/json' \\
  -d '{"from": {"seed": 0}, "to": {"seed": 1}, "frames": 9}'`,
};

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function resolve(schema, all) {
  return schema?.$ref ? resolve(all.components.schemas[schema.$ref.split("/").pop()], all) : schema;
}

function kind(schema, all) {
  const own = resolve(schema, all);
  if (own.anyOf) return own.anyOf.map((one) => kind(one, all)).join(" or ");
  if (own.enum) return own.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (own.format === "binary") return "file";
  const lowest = own.minimum ?? own.exclusiveMinimum;
  const range = lowest === undefined || !own.maximum ? "" : ` ${lowest} … ${own.maximum}`;
  return (own.type ?? "any") + range;
}

function fields(schema, all) {
  const own = resolve(schema, all);
  const rows = Object.entries(own.properties ?? {}).map(([name, field]) => {
    const needed = own.required?.includes(name);
    const initial = needed ? "needed" : field.default === undefined ? "" : JSON.stringify(field.default);
    return element("tr", {},
      element("td", {}, element("code", { textContent: name })),
      element("td", { textContent: kind(field, all) }),
      element("td", { textContent: initial }),
      element("td", { textContent: field.description ?? "" }));
  });
  const head = ["field", "kind", "default", "meaning"];
  return element("div", { className: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((h) => element("th", { textContent: h })))),
    element("tbody", {}, ...rows)));
}

function route(path, method, what, all) {
  const section = element("section", {},
    element("h2", {}, element("b", { textContent: method.toUpperCase() }), path),
    element("p", { textContent: what.description ?? "" }));
  for (const [type, { schema }] of Object.entries(what.requestBody?.content ?? {})) {
    section.append(element("h3", { textContent: `Body: ${type}` }), fields(schema, all));
  }
  const answers = Object.entries(what.responses ?? {}).map(([status, { description }]) =>
    element("tr", {}, element("td", {}, element("code", { textContent: status })),
      element("td", { textContent: description })));
  section.append(element("h3", { textContent: "Answers" }),
    element("table", {}, element("tbody", {}, ...answers)),
    element("h3", { textContent: "With curl" }),
    element("pre", { textContent: `curl ${new URL(`..${path}`, location.href)} ${EXAMPLES[path] ?? ""}` }));
  return section;
}

const all = await (await fetch("../openapi.json")).json();
document.querySelector("#about").textContent = all.info.description;
document.querySelector("#routes").replaceChildren(
  ...Object.entries(all.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, what]) => route(path, method, what, all))));
